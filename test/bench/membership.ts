/**
 * What does it cost a router to watch a thousand nodes? They beat once a second from another process,
 * 1 KB each; this process does what a router does with beats (subscribe, parse, keep the table) and
 * nothing else, and reads its own CPU time. Then a second observer starts late and is timed.
 * Target: at most 0.10 of a core.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { type BusEvent, callRoll, connectBus, Membership, type MembershipEvent, MembershipSubscriber } from '#bus';
import { findNatsServer, startNatsServer } from '#local-mesh';
import { systemClock, systemRandom } from '#runtime';
import { createEventLoopLag } from '#telemetry';
import { finish, jsonFile, printTable, quantile, rounded } from './support/report.js';

const TARGET_RATIO = 0.1;
const NODES = 1000;
const CONNECTIONS = 100;
const SECONDS = 10;
const LATE_JOINS = 5;

interface Observer {
  readonly membership: Membership;
  readonly counts: { suspected: number; rejected: number };
  stop(): Promise<void>;
}

function observe(url: string, name: string): Observer {
  const counts = { suspected: 0, rejected: 0 };
  const bus = connectBus({ url, name, clock: systemClock, random: systemRandom, emit: () => {} });
  const lag = createEventLoopLag({ clock: systemClock });
  const membership = new Membership({
    clock: systemClock,
    emit: (event: MembershipEvent) => void (event.type === 'memberSuspected' && counts.suspected++),
    lagMs: () => lag.lagMs(),
    rollCall: () => callRoll(bus),
  });
  const onBusEvent = (event: BusEvent) => void (event.type === 'beatRejected' && counts.rejected++);
  const subscriber = new MembershipSubscriber({ bus, clock: systemClock, membership, emit: onBusEvent });
  void lag.start();
  subscriber.start();
  const stop = async () => {
    subscriber.stop();
    await lag.close();
    await bus.close();
  };
  return { membership, counts, stop };
}

/** Beats and bytes on the wire in a while, counted by a connection of its own that costs nothing while figures are taken. */
async function rate(url: string, seconds: number): Promise<{ beatsPerSecond: number; bytesPerBeat: number }> {
  const bus = connectBus({ url, name: 'counter', clock: systemClock, random: systemRandom, emit: () => {} });
  await new Promise<void>((resolve) => bus.onLink((up) => up && resolve()));
  let beats = 0;
  let bytes = 0;
  bus.subscribe('dmesh.v1.node.*.beat', (message) => {
    beats += 1;
    bytes += message.data.length;
  });
  await systemClock.sleep(seconds * 1000);
  await bus.close();
  return { beatsPerSecond: beats / seconds, bytesPerBeat: bytes / beats };
}

async function measureCpu(seconds: number): Promise<number> {
  const startedAt = performance.now();
  const before = process.cpuUsage();
  await systemClock.sleep(seconds * 1000);
  const used = process.cpuUsage(before);
  return (used.user + used.system) / 1000 / (performance.now() - startedAt);
}

/** From nothing, connection included, to a full table. */
async function lateJoin(url: string, nodeCount: number): Promise<number> {
  const startedAt = performance.now();
  const late = observe(url, 'late-router');
  while (late.membership.members.size < nodeCount) await systemClock.sleep(1);
  const tookMs = performance.now() - startedAt;
  await late.stop();
  return tookMs;
}

jsonFile(); // a wrong argument ends it here, not after the work
const cacheDir = path.resolve(import.meta.dirname, '../../../.cache');
const binary = await findNatsServer({ env: process.env, cacheDir, log: () => {} });
const nats = await startNatsServer({ path: binary.path });
let swarm: ChildProcess | undefined;
try {
  swarm = fork(path.join(import.meta.dirname, 'membership-swarm.js'), [nats.url, String(NODES), String(CONNECTIONS)]);
  await once(swarm, 'message');
  const { beatsPerSecond, bytesPerBeat } = await rate(nats.url, 3);

  const idleRatio = await measureCpu(2);
  const observer = observe(nats.url, 'router');
  await systemClock.sleep(3000); // the roll call's wave and the compiler's warm-up are not the steady state
  const cpuRatio = await measureCpu(SECONDS);
  const known = observer.membership.members.size;
  const { suspected, rejected } = observer.counts;
  await observer.stop();

  const joins: number[] = [];
  for (let i = 0; i < LATE_JOINS; i++) joins.push(await lateJoin(nats.url, NODES));
  const lateJoinMs = quantile(joins, 0.5);
  const lateJoinMaxMs = Math.max(...joins);

  const microsPerBeat = (cpuRatio * 1e6) / beatsPerSecond;
  printTable(
    'Watching the mesh',
    ['figure', 'value', 'target'],
    [
      ['nodes known', String(known), String(NODES)],
      ['beats per second', beatsPerSecond.toFixed(0), ''],
      ['bytes per beat', bytesPerBeat.toFixed(0), ''],
      ['CPU of the observer, cores', cpuRatio.toFixed(4), `<= ${TARGET_RATIO}`],
      ['  of which idle process, cores', idleRatio.toFixed(4), ''],
      ['CPU per beat, microseconds', microsPerBeat.toFixed(1), ''],
      ['late join, median of 5, ms', lateJoinMs.toFixed(0), '<= 200'],
      ['late join, slowest, ms', lateJoinMaxMs.toFixed(0), ''],
      ['wrongly suspected', String(suspected), '0'],
    ],
  );
  finish({
    nodes: NODES,
    known,
    beatsPerSecond: rounded(beatsPerSecond),
    bytesPerBeat: rounded(bytesPerBeat),
    cpuRatio: rounded(cpuRatio),
    idleRatio: rounded(idleRatio),
    microsPerBeat: rounded(microsPerBeat),
    lateJoinMs: rounded(lateJoinMs),
    lateJoinMaxMs: rounded(lateJoinMaxMs),
    suspected,
    rejected,
  });
  if (cpuRatio > TARGET_RATIO) process.exitCode = 1;
} finally {
  swarm?.disconnect();
  await nats.stop();
}
