/** A node with several model folders: what it loads and when, what leaves, and what a bad folder or a bad moment does to it. */
import { readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { generation } from '#contracts';
import { Code, Reason } from '#core';
import { readFigures } from '../support/metrics.js';
import { copyOfModel } from '../support/model-folder.js';
import { closeAll, type NodeProcess, startNode } from '../support/node-process.js';

const Pictures = generation.ImageGenerationServiceService;
const NO_FOLDER = '/no/folder/means/its/own/model';
const SIZE = { width: 64, height: 64, steps: 2 };
const folders: string[] = [];
afterEach(async () => {
  await closeAll();
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
});

async function folderOf(name: string, revision = '1'): Promise<string> {
  const folder = await copyOfModel(NO_FOLDER, { name, revision });
  folders.push(folder);
  return folder;
}

async function nodeWith(dirs: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<NodeProcess> {
  return startNode({ env: { DMESH_NODE_MODEL_DIR: dirs.join(':'), ...env } });
}

const draw = async (node: NodeProcess, model: string) => {
  const { response } = await node.generate({ model, ...SIZE });
  return `${response.used?.model}@${response.used?.revision}`;
};
const loadedOf = async (node: NodeProcess) => {
  const { models } = (await node.channel.unary(Pictures.listModels, {})).response;
  return models.map(({ name, revision, loadedNodes }) => `${name}@${revision}${loadedNodes === 1 ? ' loaded' : ''}`);
};
const loads = (node: NodeProcess) => node.lines('model loaded').map(({ model, revision }) => `${model}@${revision}`);

test('the first is loaded at start, others when asked for; the longest unused makes room', async () => {
  const node = await nodeWith([await folderOf('a'), await folderOf('b'), await folderOf('a', '2')], { DMESH_NODE_LOADED_MODELS: '2' });
  expect(await loadedOf(node)).toEqual(['a@1 loaded', 'b@1', 'a@2']);
  expect(await draw(node, 'b')).toBe('b@1');
  expect(await draw(node, 'a')).toBe('a@1'); // the revision that is loaded
  await expect.poll(() => loads(node)).toEqual(['a@1', 'b@1']);
  const { response } = await node.generate({ model: 'a', ...SIZE }, { metadata: { 'x-mesh-revision': '2' } });
  expect(response.used).toMatchObject({ model: 'a', revision: '2', determinismClass: 'scripted/1' });
  expect(await loadedOf(node)).toEqual(['a@1 loaded', 'b@1', 'a@2 loaded']);
  await expect(node.generate({ model: 'c', ...SIZE })).rejects.toMatchObject({ code: Code.NOT_FOUND, reason: Reason.UNKNOWN_MODEL });
  await expect(node.generate({ model: '', ...SIZE })).rejects.toMatchObject({ reason: Reason.UNKNOWN_MODEL });
  const figures = await readFigures(node.child.http);
  expect(figures.by('dmesh_node_models', 'state')).toEqual({ loaded: 2, offered: 1, unusable: 0 });
  expect(figures.sum('dmesh_node_model_load_duration_seconds_count', { model: 'b' })).toBe(1);
});

test('where memory is short of places, the longest unused makes room all the same', async () => {
  const dirs = [await folderOf('a'), await folderOf('b'), await folderOf('c')];
  const node = await nodeWith(dirs, { DMESH_NODE_LOADED_MODELS: '3', SCRIPT_MODEL_ROOM: '2' });
  for (const model of ['b', 'a', 'c']) expect(await draw(node, model)).toBe(`${model}@1`);
  expect(await loadedOf(node)).toEqual(['a@1 loaded', 'b@1', 'c@1 loaded']);
});

test('an engine that starts again loads what it had last', async () => {
  const node = await nodeWith([await folderOf('a'), await folderOf('b')]);
  await draw(node, 'b');
  process.kill(node.enginePids().at(-1) ?? 0, 'SIGKILL');
  await node.line('engine ready', 2);
  expect(await loadedOf(node)).toEqual(['a@1', 'b@1 loaded']);
});

test('a folder that is no good is told and left out; a broken first one leaves the node to the second', async () => {
  const broken = await folderOf('broken');
  await rm(path.join(broken, 'mesh.json'));
  const node = await nodeWith([broken, await folderOf('b')]);
  expect(await loadedOf(node)).toEqual(['b@1 loaded']);
  expect(await draw(node, '')).toBe('b@1');
  expect(node.lines('model unusable: not offered')).toMatchObject([{ dir: broken, why: expect.stringContaining('mesh.json') }]);
  expect((await readFigures(node.child.http)).sum('dmesh_node_models', { state: 'unusable' })).toBe(1);
});

test('the same model twice is a wrong configuration', async () => {
  const dirs = [await folderOf('a'), await folderOf('a')];
  const node = nodeWith(dirs);
  await expect(node).rejects.toThrow(/DMESH_NODE_MODEL_DIR: .*holds a@1, as .* does/);
});

test('a load that fails sends the request elsewhere and takes the model out; the others go on', async () => {
  const [a, b] = [await folderOf('a'), await folderOf('b')];
  const node = await nodeWith([a, b]);
  await rm(path.join(b, 'mesh.json'));
  await expect(draw(node, 'b')).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.MODEL_UNUSABLE });
  expect(await loadedOf(node)).toEqual(['a@1']); // it had to leave first
  await expect(draw(node, 'b')).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.MODEL_UNUSABLE });
  await expect.poll(() => node.lines('model unusable: not offered')).toHaveLength(1);
  expect(await draw(node, 'a')).toBe('a@1');
  expect(node.enginePids()).toHaveLength(1);
});

test('another model in the folder than before is not drawn for who asked for the old one', async () => {
  const [a, b] = [await folderOf('a'), await folderOf('b')];
  const node = await nodeWith([a, b]);
  const manifest = path.join(b, 'mesh.json');
  await writeFile(manifest, (await readFile(manifest, 'utf8')).replace('"revision":"1"', '"revision":"2"'));
  await expect(draw(node, 'b')).rejects.toMatchObject({ reason: Reason.MODEL_UNUSABLE });
  expect(await draw(node, 'b')).toBe('b@2');
});

test('who leaves during a load is let go at once; the load is finished, and the slot is free then', async () => {
  const node = await nodeWith([await folderOf('a'), await folderOf('b')], { SCRIPT_LOAD: '3s' });
  const leave = new AbortController();
  const call = node.generate({ model: 'b', ...SIZE }, { signal: leave.signal });
  await expect.poll(() => node.metric('dmesh_node_slot_busy')).toBe(1);
  leave.abort();
  await expect(call).rejects.toMatchObject({ code: Code.CANCELLED });
  await expect(draw(node, 'b')).rejects.toMatchObject({ reason: Reason.NODE_BUSY });
  await expect.poll(() => node.metric('dmesh_node_slot_busy'), { timeout: 10_000 }).toBe(0);
  await expect.poll(() => loads(node)).toEqual(['a@1', 'b@1']);
  expect(await draw(node, 'b')).toBe('b@1');
  await expect.poll(() => loads(node)).toHaveLength(2);
});

test('the time of a load counts neither as execution nor against its limit', async () => {
  const limits = { DMESH_NODE_EXECUTION_FLOOR: '1s', DMESH_NODE_EXECUTION_CAP: '1s' };
  const node = await nodeWith([await folderOf('a'), await folderOf('b')], { SCRIPT_LOAD: '1500ms', ...limits });
  const { response } = await node.generate({ model: 'b', ...SIZE });
  expect(response.executingMs).toBeLessThan(1000);
});

test('a load that takes too long costs the engine, not the node', async () => {
  const env = { SCRIPT_LATER_LOADS: '1h', DMESH_NODE_ENGINE_LOAD_TIMEOUT: '2s' };
  const node = await nodeWith([await folderOf('a'), await folderOf('b')], env);
  await expect(draw(node, 'b')).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.MODEL_UNUSABLE });
  await node.line('engine killed');
  await node.line('engine ready', 2);
  expect(await draw(node, 'a')).toBe('a@1');
});

test('an engine that dies in a load is no fault of the request; the second time the model is left out', async () => {
  const node = await nodeWith([await folderOf('a'), await folderOf('b')], { SCRIPT_LATER_LOADS: '1h' });
  for (const count of [1, 2]) {
    const call = draw(node, 'b');
    await node.line('engine ready', count);
    await expect.poll(() => node.metric('dmesh_node_slot_busy')).toBe(1);
    process.kill(node.enginePids().at(-1) ?? 0, 'SIGKILL');
    await expect(call).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.MODEL_UNUSABLE });
    await node.line('engine ready', count + 1);
  }
  expect(await loadedOf(node)).toEqual(['a@1 loaded']);
});
