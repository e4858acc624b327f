/** Nodes come and go by plan while callers work: nobody notices. */
import { afterEach, expect, test } from 'vitest';
import { Code, Reason } from '#core';
import { byNode, failures, Load } from '../support/load.js';
import { wrongPictures } from '../support/picture-oracle.js';
import { useMesh } from '../support/test-mesh.js';

const mesh = useMesh({ nodes: 2, env: { node: { SCRIPT_STEP: '5ms' } } });

/** Nodes a test added are gone after it. */
afterEach(async () => {
  for (const node of mesh().nodes.filter(({ id }) => id === 'late')) await node.stop(5000);
});

const drawnBy = (load: Load, nodeId: string) => byNode(load.outcomes)[nodeId] ?? 0;

async function untilDrawn(load: Load, nodeId: string, count: number): Promise<void> {
  const before = drawnBy(load, nodeId);
  await expect.poll(() => drawnBy(load, nodeId), { timeout: 15_000 }).toBeGreaterThanOrEqual(before + count);
}

async function allRight(load: Load): Promise<void> {
  const outcomes = await load.stop();
  expect(failures(outcomes)).toEqual({});
  expect(await wrongPictures(outcomes)).toEqual([]);
}

test('a node that joins under load gets its share', async () => {
  const load = new Load(mesh().client, { callers: 12 });
  await load.more(12);
  await mesh().local.addNode({ id: 'late' });
  await untilDrawn(load, 'late', 5);
  await allRight(load);
});

test('drain under load: what runs is finished, nothing new is taken, no error; resume: it works again', async () => {
  const { client } = mesh();
  const load = new Load(client, { callers: 12 });
  await untilDrawn(load, 'node-2', 2);
  await client.drain('node-2');
  await expect.poll(async () => (await mesh().figures(mesh().node('node-2'))).sum('dmesh_node_slot_busy')).toBe(0);
  const drained = drawnBy(load, 'node-2');
  await load.more(30);
  expect(drawnBy(load, 'node-2') - drained).toBeLessThanOrEqual(2); // one being encoded, one on its way
  await expect.poll(async () => (await mesh().info('node-2')).draining).toBe(true);
  await client.resume('node-2');
  await untilDrawn(load, 'node-2', 3);
  await allRight(load);
});

test('SIGTERM of a node under load: it finishes, says goodbye and ends with code 0; no error', async () => {
  const { client, local } = mesh();
  const late = await local.addNode({ id: 'late' });
  const load = new Load(client, { callers: 12 });
  await untilDrawn(load, 'late', 3);
  late.kill('SIGTERM');
  expect(await late.exited).toEqual({ code: 0, signal: null });
  await load.more(20);
  await allRight(load);
  await expect.poll(async () => (await client.listNodes()).map(({ nodeId }) => nodeId)).toEqual(['node-1', 'node-2']);
});

test('all nodes drained: requests wait, and are drawn when one is taken back', async () => {
  const { client } = mesh();
  for (const id of ['node-1', 'node-2']) await client.drain(id);
  for (const id of ['node-1', 'node-2']) await expect.poll(async () => (await mesh().info(id)).draining).toBe(true);
  // An operator waits for this before stopping the node.
  for (const id of ['node-1', 'node-2']) await expect.poll(async () => (await mesh().info(id)).busyCount).toBe(0);
  const load = new Load(client, { callers: 8, count: 8 });
  await expect.poll(async () => (await mesh().figures()).sum('dmesh_router_queue_depth')).toBe(8);
  await client.resume('node-1');
  const outcomes = await load.finished();
  expect(byNode(outcomes)).toEqual({ 'node-1': 8 });
  await client.resume('node-2');
  await expect.poll(async () => (await mesh().info('node-2')).draining).toBe(false);
});

test('drain of a node that does not exist says which ones do', async () => {
  const error = await mesh()
    .client.drain('node-77')
    .catch((thrown) => thrown);
  expect(error).toMatchObject({ code: Code.NOT_FOUND, reason: Reason.UNKNOWN_NODE });
  expect(error.message).toContain('node-1, node-2');
});
