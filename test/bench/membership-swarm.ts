/** Many nodes that only beat, in one process; started by membership.ts so that its own cost is its own. */
import { BeatPublisher, connectBus, makeIncarnation } from '#bus';
import { systemClock, systemRandom } from '#runtime';
import { sampleBeat } from '../support/sample-beat.js';

const [url = '', nodeCountText = '', connectionCountText = ''] = process.argv.slice(2);
const nodeCount = Number(nodeCountText);
const connectionCount = Number(connectionCountText);

const connected: Promise<void>[] = [];
const buses = Array.from({ length: connectionCount }, (_, i) => {
  const bus = connectBus({ url, name: `swarm-${i}`, clock: systemClock, random: systemRandom, emit: () => {} });
  connected.push(new Promise((resolve) => bus.onLink((up) => up && resolve())));
  return bus;
});
await Promise.all(connected);

for (let i = 0; i < nodeCount; i++) {
  const bus = buses[i % buses.length];
  if (!bus) throw new Error('expected at least one connection');
  const base = { ...sampleBeat(), nodeId: `node-${i}`, incarnation: makeIncarnation(Date.now(), systemRandom) };
  const read = () => ({ ...base, completedCount: Math.floor(systemClock.now() / 1000), running: running(i) });
  // Nodes do not start together; neither do these.
  systemClock.schedule(systemRandom() * 1000, () => new BeatPublisher({ bus, clock: systemClock, random: systemRandom, read }).start());
}
systemClock.schedule(1500, () => process.send?.('ready'));
process.on('disconnect', () => process.exit(0));

/** Every other node draws, as in a mesh at half load. */
function running(i: number) {
  const step = Math.floor(systemClock.now() / 125) % 8;
  return i % 2 === 0 ? [] : [{ requestId: `0192f0c4-7d1e-7c3a-9a51-${i}`, step, total: 8, remainingMs: (8 - step) * 125 }];
}
