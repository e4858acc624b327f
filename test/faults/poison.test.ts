/** A request that breaks engines is stopped after two nodes; a node that keeps failing is taken out and let back by a canary. */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, expect, test } from 'vitest';
import type { MeshError } from '#client';
import { admin } from '#contracts';
import { Code, Reason } from '#core';
import { byNode, failures, Load } from '../support/load.js';
import { wrongPictures } from '../support/picture-oracle.js';
import { useMesh } from '../support/test-mesh.js';

const stateDir = path.join(tmpdir(), `dmesh-test-${randomUUID()}`);
afterAll(() => rm(stateDir, { recursive: true, force: true }));

const mesh = useMesh(() => ({
  nodes: 3,
  env: {
    router: { DMESH_ROUTER_BREAKER_OPEN: '2s' }, // long enough to be seen on a busy machine
    node: { SCRIPT_STEP: '5ms', SCRIPT_STATE_DIR: path.join(stateDir, randomUUID()), DMESH_NODE_STEP_TIMEOUT: '1s' },
  },
}));

/** Nodes a test added are gone after it. */
afterEach(async () => {
  for (const node of mesh().nodes.filter(({ id }) => id.startsWith('odd'))) await node.stop(5000);
});

const SIZE = { width: 64, height: 64 };
const refused = (prompt: string): Promise<MeshError> =>
  mesh()
    .client.generate({ prompt, seed: 1, ...SIZE })
    .then(
      () => expect.fail('expected a failure, got a picture'),
      (thrown) => thrown,
    );
const breakerOf = async (nodeId: string) => (await mesh().info(nodeId)).breaker;
const { CLOSED, OPEN } = admin.BreakerState;

async function allClosed(): Promise<void> {
  const states = async () => (await mesh().client.listNodes()).map(({ breaker }) => breaker);
  await expect.poll(states, { timeout: 10_000 }).toEqual([CLOSED, CLOSED, CLOSED]);
}

test.each([
  ['crashes the engine', '[crash@2]', Reason.ENGINE_CRASHED],
  ['hangs the engine', '[hang@2]', Reason.ENGINE_STALLED],
  ['needs more memory than there is', '[oom@2]', Reason.OUT_OF_MEMORY],
  ['makes numbers that are none', '[nan]', Reason.NAN_OUTPUT],
  ['gives a blank picture', '[blank]', Reason.BLANK_OUTPUT],
])('a request that %s is stopped after two nodes as POISON, and others are served all the while', async (_, directive, lastReason) => {
  const load = new Load(mesh().client, { callers: 3 });
  await load.more(3);
  const error = await refused(`poison ${directive}`);
  expect(error).toMatchObject({ code: Code.ABORTED, reason: Reason.POISON, details: { metadata: { last_reason: lastReason } } });
  expect(error.details.metadata?.nodes?.split(', ')).toHaveLength(2);
  await load.more(6);
  const outcomes = await load.stop();
  expect(failures(outcomes)).toEqual({});
  expect(await wrongPictures(outcomes)).toEqual([]);
  await mesh().whole(); // every engine is back
});

test('the same fault once is an accident: the picture comes from another node', async () => {
  for (const fault of ['crash@2', 'oom', 'nan', 'blank', 'garbage']) {
    const { attempts } = await mesh().client.generate({ prompt: `accident [${fault}] [once]`, seed: 1, ...SIZE });
    expect([fault, attempts]).toEqual([fault, 2]);
  }
  await mesh().whole();
});

test('an engine that breaks its protocol gives DATA_LOSS, never a broken picture', async () => {
  const error = await refused('[garbage]');
  expect(error).toMatchObject({ code: Code.DATA_LOSS, reason: Reason.BAD_STREAM });
  expect(error.message).toContain('bytes of RGB');
  await mesh().whole();
});

test('a node that fails again and again is taken out by its breaker, and let back by a canary', async () => {
  const { local, client } = mesh();
  await allClosed();
  await local.addNode({ id: 'odd', env: { SCRIPT_FAULT: 'nan' } });
  await expect.poll(async () => (await client.listNodes()).some(({ nodeId, connected }) => nodeId === 'odd' && connected)).toBe(true);
  const openings = async () => (await mesh().figures()).sum('dmesh_router_breaker_openings_total', { cause: 'consecutiveFailures' });
  const gauge = async () => (await mesh().figures()).sum('dmesh_router_breaker_state', { node: 'odd' });
  const before = await openings();

  const load = new Load(client, { callers: 8 });
  await expect.poll(() => breakerOf('odd'), { timeout: 20_000, interval: 20 }).toBe(OPEN);
  expect(await openings()).toBeGreaterThan(before);
  const outcomes = await load.stop();
  expect(failures(outcomes)).toEqual({});
  expect(await wrongPictures(outcomes)).toEqual([]);
  expect(byNode(outcomes).odd ?? 0).toBe(0);

  await expect.poll(() => breakerOf('odd'), { timeout: 10_000 }).toBe(CLOSED);
  expect(await gauge()).toBe(0);
  const said = ['"breaker opened"', 'drawing a canary', '"canary drawn"', '"breaker closed"'];
  const lines = () => mesh().router.lines.filter((line) => line.includes('"odd"'));
  await expect.poll(() => said.filter((words) => !lines().some((line) => line.includes(words)))).toEqual([]);
});

test('a node whose engine draws other pictures after a restart is not believed: it takes no work', async () => {
  const { local, client } = mesh();
  // Another try counts its own starts; and no stall of the machine makes a start more than this test asks for.
  const env = { SCRIPT_DRIFT_FROM_START: '2', SCRIPT_STATE_DIR: path.join(stateDir, randomUUID()), DMESH_NODE_STEP_TIMEOUT: '30s' };
  const odd = await local.addNode({ id: 'odd-drift', env });
  const load = new Load(client, { callers: 8 });
  await expect.poll(() => byNode(load.outcomes)['odd-drift'] ?? 0, { timeout: 20_000 }).toBeGreaterThan(2);
  process.kill(mesh().enginePid('odd-drift'), 'SIGKILL');
  await odd.waitForLine((line) => line.text.includes('canary failed'), { timeoutMs: 30_000, what: 'to fail its canary' });
  const drawn = byNode(load.outcomes)['odd-drift'];
  await load.more(20);
  const outcomes = await load.stop();
  expect(failures(outcomes)).toEqual({});
  expect(await wrongPictures(outcomes)).toEqual([]);
  expect((byNode(outcomes)['odd-drift'] ?? 0) - (drawn ?? 0)).toBeLessThanOrEqual(1); // an answer that was on its way
  await expect.poll(async () => (await mesh().info('odd-drift')).engineState).toBe('failed');
});
