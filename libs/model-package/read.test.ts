import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Code, Reason } from '#core';
import { modelDir } from '../../test/support/model-folder.js';
import { latentShape, modelInfoOf, modelMessage } from './index.js';
import { parseManifest } from './manifest.js';
import { readModelPackage } from './read.js';

let dir = '';
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'dmesh-model-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const unusable = (text: string) =>
  expect.objectContaining({ code: Code.FAILED_PRECONDITION, reason: Reason.MODEL_UNUSABLE, message: expect.stringContaining(text) });

test('readModelPackage() reads the embedded model', async () => {
  const { info, loraFiles, digests, digest } = await readModelPackage(modelDir);
  expect(info).toMatchObject({ name: 'z-image-tiny', family: 'z-image', defaults: { width: 128, height: 128, steps: 8 } });
  expect([...loraFiles.keys()]).toEqual(info.loras.map((lora) => lora.name));
  expect(digests.get('model_index.json')).toMatch(/^[0-9a-f]{64}$/);
  expect(digest).toMatch(/^[0-9a-f]{64}$/);
});

test('ModelInfo survives the way through the contract’s message', async () => {
  const { info } = await readModelPackage(modelDir);
  expect(modelInfoOf(modelMessage(info, 3))).toEqual(info);
  expect(modelMessage(info, 3).nodes).toBe(3);
});

test('readModelPackage() wants a mesh.json', async () => {
  await expect(readModelPackage(dir)).rejects.toEqual(unusable('with a mesh.json'));
});

test('readModelPackage() names every missing file, those an engine adds included', async () => {
  await cp(path.join(modelDir, 'mesh.json'), path.join(dir, 'mesh.json'));
  await expect(readModelPackage(dir, ['onnx/extra.onnx'])).rejects.toEqual(unusable('vae/config.json'));
  await expect(readModelPackage(dir, ['onnx/extra.onnx'])).rejects.toEqual(unusable('onnx/extra.onnx'));
});

test('readModelPackage() leaves the parts of other families to their engine', async () => {
  const manifest = JSON.parse(await readFile(path.join(modelDir, 'mesh.json'), 'utf8'));
  await writeFile(path.join(dir, 'mesh.json'), JSON.stringify({ ...manifest, family: 'stable-diffusion', loras: [] }));
  await expect(readModelPackage(dir)).rejects.toEqual(unusable('lacks model_index.json'));
  await writeFile(path.join(dir, 'model_index.json'), '{}');
  expect((await readModelPackage(dir)).info.family).toBe('stable-diffusion');
});

test('readModelPackage() names every wrong field of mesh.json', async () => {
  await writeFile(path.join(dir, 'mesh.json'), JSON.stringify({ name: 'a b', languages: 'en', defaults: {}, limits: 7, loras: [{}] }));
  const error = await readModelPackage(dir).catch((reason) => reason);
  for (const field of ['name: ', 'languages: ', 'defaults.width: ', 'limits: ', 'negativePrompt: ', 'loras[0].file: ']) {
    expect(error.message).toContain(field);
  }
});

test.each([
  ['text that is no JSON', '{', 'expected JSON'],
  ['a list', '[]', 'the file: expected an object, got []'],
])('parseManifest() refuses %s', (_what, text, fault) => {
  const result = parseManifest(text);
  expect(result.ok ? [] : result.faults).toContainEqual(expect.stringContaining(fault));
});

test('parseManifest() refuses defaults outside the limits, adapters outside the folder, and digests that are none', async () => {
  const { info } = await readModelPackage(modelDir);
  const manifest = {
    ...info,
    defaults: { ...info.defaults, steps: 99 },
    loras: [{ name: 'x', file: '../x.safetensors', description: 'y' }],
    digests: { 'a.json': 'abc' },
  };
  const result = parseManifest(JSON.stringify(manifest));
  expect(result.ok ? [] : result.faults).toEqual([
    'defaults.steps: 99 is outside 1 to 50',
    'loras: ../x.safetensors leads out of the folder',
    'digests.a.json: expected a SHA-256 in hex, got "abc"',
  ]);
});

test('parseManifest() refuses what the contract cannot carry or what contradicts itself', async () => {
  const { info } = await readModelPackage(modelDir);
  const limits = { ...info.limits, maxWidth: 2 ** 40, maxGuidanceScale: 1e300, maxLoraStrength: -1 };
  const result = parseManifest(JSON.stringify({ ...info, defaults: { ...info.defaults, height: 100 }, limits, loras: [] }));
  expect(result.ok ? [] : result.faults).toEqual([
    'limits.maxWidth: expected an integer from 1 to 4294967295, got 1099511627776',
    'limits.maxGuidanceScale: expected a number that 32 bits hold, got 1e+300',
    'limits.maxLoraStrength: -1 is less than minLoraStrength, 0',
    'defaults.height: 100 is no multiple of 16',
  ]);
});

test('latentShape() counts the noise of a picture', () => {
  expect(latentShape(128, 64)).toEqual({ dims: [1, 16, 8, 16], elementCount: 2048 });
});
