/** An engine that dies or hangs under load costs nobody an answer; its node starts another and works again. */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { Code, Reason } from '#core';
import { byNode, failures, Load } from '../support/load.js';
import { wrongPictures } from '../support/picture-oracle.js';
import { useMesh } from '../support/test-mesh.js';

/** Where the engines note what has happened once. */
const stateDir = path.join(tmpdir(), `dmesh-test-${randomUUID()}`);
afterAll(() => rm(stateDir, { recursive: true, force: true }));

const mesh = useMesh(() => ({
  nodes: 3,
  env: {
    node: {
      SCRIPT_STEP: '5ms',
      SCRIPT_STATE_DIR: path.join(stateDir, randomUUID()),
      DMESH_NODE_STEP_TIMEOUT: '1s',
      DMESH_NODE_CANCEL_GRACE: '400ms',
      DMESH_NODE_EXECUTION_FLOOR: '1500ms',
    },
  },
}));

const restartCount = async (nodeId: string) => Number((await mesh().info(nodeId)).engineRestartCount);

/** Resolves when the node has drawn so many more of this load's pictures. */
async function untilDrawn(load: Load, nodeId: string, count: number): Promise<void> {
  const before = byNode(load.outcomes)[nodeId] ?? 0;
  await expect.poll(() => byNode(load.outcomes)[nodeId] ?? 0, { timeout: 15_000 }).toBeGreaterThanOrEqual(before + count);
}

test('an engine killed with kill -9 under load: no caller error, the slot is back with a new engine', async () => {
  const before = await restartCount('node-1');
  const load = new Load(mesh().client, { callers: 20 });
  await untilDrawn(load, 'node-1', 2);
  process.kill(mesh().enginePid('node-1'), 'SIGKILL');
  // More than once where a machine stalls for longer than the short step timeout of these nodes.
  await expect.poll(() => restartCount('node-1'), { timeout: 10_000 }).toBeGreaterThan(before);
  await untilDrawn(load, 'node-1', 3);
  const outcomes = await load.stop();
  expect(failures(outcomes)).toEqual({});
  expect(await wrongPictures(outcomes)).toEqual([]);
});

test('an engine that hangs is killed and its request drawn elsewhere: no caller error, the slot is back', async () => {
  const killed = () => mesh().nodes.flatMap((node) => node.lines.filter((line) => line.includes('"engine killed"')));
  const killedBefore = killed().length;
  const load = new Load(mesh().client, { callers: 10 });
  await load.more(10);
  const hung = await mesh().client.generate({ prompt: 'slow one [hang@3] [once]', seed: 7, width: 64, height: 64 });
  expect(hung.attempts).toBe(2);
  const request = { prompt: 'slow one [hang@3] [once]', seed: 7, width: 64, height: 64 };
  const drawn = {
    ok: true,
    request,
    data: hung.images[0]?.data ?? new Uint8Array(),
    nodeId: '',
    attempts: 2,
    endedAt: 0,
    tookMs: 0,
  } as const;
  expect(await wrongPictures([drawn])).toEqual([]);
  for (const id of ['node-1', 'node-2', 'node-3']) await untilDrawn(load, id, 2);
  // More than one where a machine stalls for longer than the short step timeout of these nodes.
  expect(killed().length).toBeGreaterThan(killedBefore);
  expect(failures(await load.stop())).toEqual({});
});

test('an engine frozen with SIGSTOP is found out by its node and replaced', async () => {
  const before = await restartCount('node-2');
  const load = new Load(mesh().client, { callers: 20 });
  await untilDrawn(load, 'node-2', 2);
  process.kill(mesh().enginePid('node-2'), 'SIGSTOP');
  await expect.poll(() => restartCount('node-2'), { timeout: 15_000 }).toBeGreaterThan(before);
  await untilDrawn(load, 'node-2', 3);
  const outcomes = await load.stop();
  expect(failures(outcomes)).toEqual({});
  expect(await wrongPictures(outcomes)).toEqual([]);
});

test('engines of all nodes killed at once: callers wait, none gets an error', async () => {
  const load = new Load(mesh().client, { callers: 6 });
  await load.more(6);
  for (const { id } of mesh().nodes) process.kill(mesh().enginePid(id), 'SIGKILL');
  for (const { id } of mesh().nodes) await untilDrawn(load, id, 2);
  const outcomes = await load.stop();
  expect(failures(outcomes)).toEqual({});
  expect(await wrongPictures(outcomes)).toEqual([]);
});

test('a picture that takes many times its prediction is EXECUTION_TIMEOUT, says what was allowed, and costs no engine', async () => {
  await new Load(mesh().client, { callers: 3, count: 9 }).finished(); // so that there is a prediction
  const pids = ['node-1', 'node-2', 'node-3'].map((id) => mesh().enginePid(id));
  const slow = { prompt: '[step=300ms]', steps: 20, width: 64, height: 64 };
  const error = await mesh()
    .client.generate(slow)
    .catch((thrown) => thrown);
  expect(error).toMatchObject({ code: Code.DEADLINE_EXCEEDED, reason: Reason.EXECUTION_TIMEOUT });
  expect(Number(error.details.metadata.predicted_ms)).toBeLessThan(1000);
  expect(Number(error.details.metadata.allowed_ms)).toBeLessThan(6000);
  await mesh().quiet();
  expect(['node-1', 'node-2', 'node-3'].map((id) => mesh().enginePid(id))).toEqual(pids);
});
