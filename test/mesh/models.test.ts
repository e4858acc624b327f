/** Nodes with several models in a real mesh: both are served, nodes specialise, and a node that dies while it loads loses nothing. */
import { execFile } from 'node:child_process';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import type { Progress } from '#client';
import { packageRoot } from '#runtime';
import { Load } from '../support/load.js';
import { copyOfModel } from '../support/model-folder.js';
import { useShared } from '../support/shared.js';
import { only, TestMesh } from '../support/test-mesh.js';

const NO_FOLDER = '/no/folder/means/its/own/model';
const CLI = path.join(packageRoot, 'dist/services/cli/main.js');
const SIZE = { width: 64, height: 64, steps: 8 };
const LOAD_MS = 500;
let folders: string[] = [];
let mesh: TestMesh;

useShared(
  async () => {
    folders = [await copyOfModel(NO_FOLDER, { name: 'a' }), await copyOfModel(NO_FOLDER, { name: 'b' })];
    const node = { DMESH_NODE_MODEL_DIR: folders.join(path.delimiter), SCRIPT_LATER_LOADS: `${LOAD_MS}ms` };
    mesh = await TestMesh.start({ nodes: 1, env: { node } });
  },
  async () => {
    await mesh?.stop();
    for (const folder of folders) await rm(folder, { recursive: true });
  },
);

const loadCount = async () => {
  const figures = await Promise.all(mesh.nodes.map((node) => mesh.figures(node)));
  return figures.reduce((sum, each) => sum + each.sum('dmesh_node_model_load_duration_seconds_count'), 0);
};

test('one node serves both; lists say what is loaded, a stream that it is loaded first', async () => {
  expect(await mesh.client.listModels()).toMatchObject([
    { name: 'a', nodes: 1, loadedNodes: 1 },
    { name: 'b', nodes: 1, loadedNodes: 0 },
  ]);
  for (const model of ['b', 'a', 'a', 'b']) expect((await mesh.client.generate({ prompt: 'x', model, ...SIZE })).used.model).toBe(model);
  expect(await loadCount()).toBe(4); // a at its start, then b, a, b
  await expect
    .poll(() => mesh.client.listModels())
    .toMatchObject([
      { name: 'a', loadedNodes: 0 },
      { name: 'b', loadedNodes: 1 },
    ]);
  const [a] = await mesh.client.listModels();
  expect(only(a).loadMs).toBeGreaterThanOrEqual(LOAD_MS);
  const loadTimes: number[] = [];
  const onProgress = (progress: Progress) => void (progress.kind === 'started' && loadTimes.push(progress.loadMs));
  await mesh.client.generate({ prompt: 'x', model: 'b', ...SIZE }, { onProgress });
  expect(loadTimes).toEqual([0]);
  const env = { ...process.env, DMESH_ROUTER: mesh.local.address };
  const dmesh = async (...args: string[]) => (await promisify(execFile)(process.execPath, [CLI, ...args], { env })).stdout;
  expect(await dmesh('models')).toMatch(/a {2}revision 1, served by 1 node, loaded on none; a load takes about [\d.]+ m?s/);
  expect(await dmesh('nodes')).toMatch(/a@1 \([\d.]+ m?s\) b@1/);
  expect(await dmesh('top', '--once')).toMatch(/MODELS.*\n.*b@1 \+1/);
});

/** What a load takes is known once there was one; and one node has each model then. */
async function secondNode(): Promise<void> {
  for (const model of ['a', 'b']) await mesh.client.generate({ prompt: 'x', model, ...SIZE });
  if (mesh.nodes.length < 2) await mesh.local.addNode({});
  await mesh.local.waitForNodes(2);
}

test('two nodes with two models specialise under mixed load', async () => {
  await secondNode();
  const before = await loadCount();
  const loads = ['a', 'b'].map((model) => new Load(mesh.client, { callers: 3, count: 40, request: { model, ...SIZE } }));
  const outcomes = (await Promise.all(loads.map((load) => load.finished()))).flat();
  expect(outcomes.filter(({ ok }) => !ok)).toEqual([]);
  expect(outcomes).toHaveLength(80);
  expect((await loadCount()) - before).toBeLessThanOrEqual(4);
});

test('a node that is killed in the middle of a load costs no request', async () => {
  await secondNode();
  const first = await Promise.all(['a', 'b'].map((model) => mesh.client.generate({ prompt: 'x', model, ...SIZE })));
  const both = new Set(first.map(({ nodeId }) => nodeId));
  expect(both.size).toBe(2); // one each
  await mesh.client.drain(only(first[1]).nodeId);
  await expect.poll(async () => (await mesh.info(only(first[1]).nodeId)).draining).toBe(true);
  const call = mesh.client.generate({ prompt: 'y', model: 'b', ...SIZE });
  const loading = mesh.node(only(first[0]).nodeId);
  await expect.poll(async () => (await mesh.figures(loading)).sum('dmesh_node_slot_busy')).toBe(1);
  await mesh.client.resume(only(first[1]).nodeId);
  loading.kill('SIGKILL');
  expect(await call).toMatchObject({ nodeId: only(first[1]).nodeId, attempts: 2 });
});
