import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { Reason } from '#core';
import { copyOfModel } from '../../../test/support/model-folder.js';
import { sampleBeat } from '../../../test/support/sample-beat.js';
import type { NodeEvent } from '../events.js';
import { Catalogue, type ModelFolder, twinFaults } from './catalogue.js';

const [MODEL = expect.fail('a beat without a model')] = sampleBeat().models;

async function folderOf(name: string, revision = '1'): Promise<ModelFolder> {
  const dir = await copyOfModel('/none', { name, revision });
  onTestFinished(() => rm(dir, { recursive: true }));
  return { dir };
}

async function catalogueOf(folders: readonly ModelFolder[], loadedLimit = 1) {
  const told: string[] = [];
  const emit = (event: NodeEvent) => void (event.type === 'modelUnusable' && told.push(event.why));
  const catalogue = new Catalogue({ dirs: folders.map(({ dir }) => dir), loadedLimit, emit, onChange: () => {} });
  await catalogue.read();
  const load = (folder: ModelFolder, tookMs = 100) => {
    const left = catalogue.begin(folder).map(({ name }) => name);
    const info = catalogue.models.find(({ dir }) => dir === folder.dir)?.info ?? MODEL;
    catalogue.loaded(folder, { info, determinismClass: 'c/1', tookMs });
    return left;
  };
  return { catalogue, load, told };
}

const shown = ({ models }: Catalogue) => models.map(({ info, loaded }) => `${info.name}${loaded ? '*' : ''}`).join(' ');

test('the longest unused leaves, and a model counts as loaded from the beginning of its load', async () => {
  const [a, b, c] = [await folderOf('a'), await folderOf('b'), await folderOf('c')];
  const { catalogue, load } = await catalogueOf([a, b, c], 2);
  expect(load(a)).toEqual([]);
  expect(load(b)).toEqual([]);
  catalogue.used(a);
  expect(catalogue.begin(c).map(({ name }) => name)).toEqual(['b']);
  expect(shown(catalogue)).toBe('a* b c*');
  catalogue.unusable(c, 'its weights are damaged');
  expect(shown(catalogue)).toBe('a* b');
  expect(() => catalogue.find('c', '')).toThrow(expect.objectContaining({ reason: Reason.MODEL_UNUSABLE }));
  catalogue.forgive();
  expect(shown(catalogue)).toBe('a* b c');
});

test('a load takes as long as the last time; before, as its size and the loads of others suggest', async () => {
  const [a, b] = [await folderOf('a'), await folderOf('b')];
  await writeFile(path.join(b.dir, 'weights'), Buffer.alloc(2_000_000));
  const { catalogue, load } = await catalogueOf([a, b]);
  const loadMs = () => catalogue.models.map((model) => model.loadMs);
  expect(loadMs()[1]).toBeCloseTo(3, 0); // 2 MB and a bit at 1 GB/s, rounded up
  load(b, 4000);
  load(a, 500);
  expect(loadMs()).toEqual([500, 4000]);
});

test('a node starts with what it had last, in that order; else with the first that can be loaded', async () => {
  const [a, b, c] = [await folderOf('a'), await folderOf('b'), await folderOf('c')];
  const { catalogue, load } = await catalogueOf([a, b, c], 2);
  const start = () => {
    catalogue.emptied();
    const tried: string[] = [];
    for (const { dir } of catalogue.toStartWith()) {
      tried.push([a, b, c].map((each, i) => (each.dir === dir ? 'abc'[i] : '')).join(''));
      if (dir === a.dir) catalogue.unusable(a, 'it has gone');
      else load({ dir });
    }
    return tried.join(' ');
  };
  expect(start()).toBe('a b');
  load(c);
  expect(start()).toBe('b c');
});

test('a node that has nothing left offers everything again', async () => {
  const [a, b] = [await folderOf('a'), await folderOf('b')];
  const { catalogue, told } = await catalogueOf([a, b]);
  catalogue.crashed(a);
  expect(shown(catalogue)).toBe('a b');
  catalogue.crashed(a);
  expect(shown(catalogue)).toBe('b');
  catalogue.unusable(b, 'no memory');
  expect(shown(catalogue)).toBe('a b');
  expect(told).toEqual(['the engine ended 2 times while it loaded it', 'no memory']);
});

test('of the same model twice the first counts, and it is told which two they are', async () => {
  const [a, twin, other] = [await folderOf('a'), await folderOf('a'), await folderOf('a', '2')];
  const { catalogue, told } = await catalogueOf([a, twin, other]);
  catalogue.report();
  catalogue.report();
  expect(told).toEqual([`it holds a@1, as ${a.dir} does`]);
  expect(catalogue.models.map(({ info }) => info.revision)).toEqual(['1', '2']);
  expect(await twinFaults([a.dir, twin.dir, other.dir, tmpdir()])).toEqual([`${twin.dir}: it holds a@1, as ${a.dir} does`]);
  expect(catalogue.find('a', '2').info.revision).toBe('2');
  expect(catalogue.find('', '').info.revision).toBe('1');
});

test('an empty folder is told, and tried by the engine all the same', async () => {
  const empty = { dir: await mkdtemp(path.join(tmpdir(), 'dmesh-empty-')) };
  onTestFinished(() => rm(empty.dir, { recursive: true }));
  const { catalogue, load, told } = await catalogueOf([empty]);
  expect(shown(catalogue)).toBe('');
  expect([...catalogue.toStartWith()].map(({ dir }) => dir)).toEqual([empty.dir]);
  load(empty);
  await catalogue.read();
  catalogue.report();
  expect(shown(catalogue)).toBe('z-image-tiny*');
  expect(told).toEqual([]);
});
