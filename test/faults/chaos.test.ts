/**
 * One fault after another, in an order drawn from a seed, under load: every call ends exactly once,
 * with its right picture or with the cancel its caller asked for, and afterwards nothing is held.
 * DMESH_TEST_SEED=n replays a run.
 */
import { expect, test } from 'vitest';
import { Reason } from '#core';
import { Load } from '../support/load.js';
import { wrongPictures } from '../support/picture-oracle.js';
import { seededRandom } from '../support/seeded-random.js';
import { only, useMesh } from '../support/test-mesh.js';

const mesh = useMesh({ nodes: 3, env: { node: { SCRIPT_STEP: '5ms', DMESH_NODE_STEP_TIMEOUT: '1s' } } });
const FAULT_COUNT = 8;

/** Each ends with the mesh whole again. */
const FAULTS: Readonly<Record<string, (nodeId: string) => Promise<void>>> = {
  'node killed': async (id) => {
    const node = mesh().node(id);
    node.kill('SIGKILL');
    await node.exited;
    await mesh().revive(node);
  },
  'node frozen': async (id) => {
    mesh().node(id).kill('SIGSTOP');
    await expect.poll(async () => (await mesh().info(id)).connected, { timeout: 10_000 }).toBe(false);
    mesh().node(id).kill('SIGCONT');
    await mesh().whole();
  },
  'engine killed': async (id) => {
    const before = (await mesh().info(id)).engineRestartCount;
    process.kill(mesh().enginePid(id), 'SIGKILL');
    await expect.poll(async () => (await mesh().info(id)).engineRestartCount, { timeout: 10_000 }).toBeGreaterThan(before);
    await mesh().whole();
  },
  'node drained': async (id) => {
    // "NATS is away; try again when it is back": it may have been restarted a moment ago.
    await expect
      .poll(
        () =>
          mesh()
            .client.drain(id)
            .then(
              () => 'drained',
              (error) => error.reason,
            ),
        { timeout: 10_000 },
      )
      .toBe('drained');
    await expect.poll(async () => (await mesh().info(id)).draining, { timeout: 10_000 }).toBe(true);
    await mesh().client.resume(id);
    await mesh().whole();
  },
  'NATS restarted': async () => {
    await only(mesh().local.nats).kill();
    await mesh().local.restartNats();
    await expect.poll(async () => (await mesh().figures()).sum('dmesh_router_membership_frozen'), { timeout: 20_000 }).toBe(0);
  },
  'callers leave': async () => {
    const leaving = new AbortController();
    // Some 16 s a picture: none is done before its caller has left.
    const calls = Array.from({ length: 10 }, (_, i) =>
      mesh()
        .client.generate({ prompt: `left ${i} [step=400ms]`, seed: i, width: 64, height: 64, steps: 40 }, { signal: leaving.signal })
        .catch((error) => error.reason),
    );
    await expect.poll(async () => (await mesh().figures()).sum('dmesh_router_live_requests')).toBeGreaterThan(10);
    leaving.abort();
    expect(new Set(await Promise.all(calls))).toEqual(new Set([Reason.CANCELLED]));
  },
};

test('whatever happens in whatever order, every call gets its one right answer', { timeout: 120_000 }, async () => {
  const seed = Number(process.env.DMESH_TEST_SEED ?? Math.floor(Math.random() * 1e6));
  const random = seededRandom(seed);
  const names = Object.keys(FAULTS);
  const order = Array.from({ length: FAULT_COUNT }, () => ({
    name: only(names[Math.floor(random() * names.length)]),
    nodeId: `node-${1 + Math.floor(random() * 3)}`,
  }));
  const story = `DMESH_TEST_SEED=${seed}: ${order.map(({ name, nodeId }) => `${name} (${nodeId})`).join(', ')}`;

  const load = new Load(mesh().client, { callers: 12 });
  for (const { name, nodeId } of order) {
    await load.more(12);
    await FAULTS[name]?.(nodeId);
  }
  const outcomes = await load.stop();
  expect(
    outcomes.filter((outcome) => !outcome.ok).map(({ error }) => `${error.reason}: ${error.message}`),
    story,
  ).toEqual([]);
  expect(await wrongPictures(outcomes), story).toEqual([]);
  expect(new Set(outcomes.map(({ request }) => request.seed)).size, story).toBe(outcomes.length);
});
