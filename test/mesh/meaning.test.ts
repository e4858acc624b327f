/**
 * What a picture means, through the whole mesh: real engines draw with the embedded model, and the
 * judge says from the pixels alone what is to be seen.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import type { PictureRequest } from '#client';
import { Code, Reason } from '#core';
import { packageRoot } from '#runtime';
import { judge, type Scenes, type Verdict } from '../../libs/embedded-model/judge.js';
import { digests, failures, Load } from '../support/load.js';
import { only, useMesh } from '../support/test-mesh.js';

interface Caption {
  readonly caption: string;
  readonly language: 'en' | 'zh';
  readonly colour: string;
  readonly background: string;
  readonly shape: string;
  readonly position: string;
  readonly seed: number;
}

const read = <T>(file: string): T => JSON.parse(readFileSync(path.join(packageRoot, 'libs/embedded-model', file), 'utf8'));
const scenes = read<Scenes>('scenes.json');
const heldOut = read<Caption[]>('heldout.json');

const mesh = useMesh({ nodes: 2, kind: 'onnx' });
const RED_CIRCLE = { prompt: 'a big red circle on a blue background', seed: 3 };

async function draw(request: PictureRequest, address = mesh().local.address): Promise<Uint8Array> {
  const { images } = await mesh().connect(address).generate(request);
  return only(images[0]).data;
}

async function pixelsOf(file: Uint8Array): Promise<{ data: Buffer; width: number; height: number; format: string | undefined }> {
  const { format } = await sharp(file).metadata();
  const { data, info } = await sharp(file).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height, format };
}

async function verdict(file: Uint8Array): Promise<Verdict> {
  const { data, width, height } = await pixelsOf(file);
  return judge(data, width, height, scenes);
}

test.each(['png', 'jpeg', 'webp'] as const)('a big red circle on a blue background is that, as %s', async (format) => {
  const file = await draw({ ...RED_CIRCLE, format });
  expect(await pixelsOf(file)).toMatchObject({ format, width: 128, height: 128 });
  expect(await verdict(file)).toMatchObject({ colour: 'red', shape: 'circle', background: 'blue', size: 'large' });
});

describe.each(['en', 'zh'] as const)('captions kept out of training, %s', (language) => {
  test('show what they say', async () => {
    // Every 12th, so that colours, shapes and places vary.
    const captions = heldOut
      .filter((one) => one.language === language)
      .filter((_, i) => i % 12 === 0)
      .slice(0, 12);
    const verdicts = await Promise.all(captions.map(async ({ caption: prompt, seed }) => verdict(await draw({ prompt, seed }))));
    const right = (property: 'colour' | 'background' | 'shape' | 'position') =>
      verdicts.filter((found, i) => found[property] === captions[i]?.[property]).length / captions.length;
    // A dozen pictures: room for one slip each, two for shapes. The full table is `npm run model:score`.
    expect(right('colour')).toBeGreaterThan(0.9);
    expect(right('background')).toBeGreaterThan(0.9);
    expect(right('position')).toBeGreaterThan(0.9);
    expect(right('shape')).toBeGreaterThan(0.8);
  });
});

test('the same request with the same seed is the same file on each node and through the router', async () => {
  const pictures: Uint8Array[] = [];
  // One after the other: a node called directly makes nobody wait, it says that it is busy.
  for (const address of [mesh().node('node-1').grpc, mesh().node('node-2').grpc, mesh().local.address]) {
    pictures.push(await draw(RED_CIRCLE, address));
  }
  const [first, ...others] = pictures;
  for (const other of others) expect(Buffer.from(other).equals(Buffer.from(only(first)))).toBe(true);
  const another = await draw({ ...RED_CIRCLE, seed: 4 });
  expect(Buffer.from(another).equals(Buffer.from(only(first)))).toBe(false);
});

test.each([
  [64, 64],
  [96, 160],
  [256, 256],
])('other sizes are drawn too: %i×%i', async (width, height) => {
  expect(await pixelsOf(await draw({ ...RED_CIRCLE, width, height }))).toMatchObject({ width, height });
});

test('the strength of a LoRA is felt through the mesh: none at 0, more with more', async () => {
  const [model] = await mesh().client.listModels();
  const name = only(model?.loras[0]).name;
  const bare = await pixelsOf(await draw(RED_CIRCLE));
  const distances: number[] = [];
  for (const strength of [0, 0.5, 1]) {
    const { data } = await pixelsOf(await draw({ ...RED_CIRCLE, loras: [{ name, strength }] }));
    distances.push(data.reduce((sum, byte, i) => sum + Math.abs(byte - (bare.data[i] ?? 0)), 0) / data.length);
  }
  const [none = -1, half = 0, full = 0] = distances;
  expect(none).toBe(0);
  expect(half).toBeGreaterThan(1);
  expect(full).toBeGreaterThan(1.2 * half);
});

test('a prompt too long for the model, and a LoRA it does not have: refused once, by name', async () => {
  const { client } = mesh();
  const long = await client.generate({ prompt: 'a red circle and '.repeat(200) }).catch((thrown) => thrown);
  expect(long).toMatchObject({ code: Code.INVALID_ARGUMENT, reason: Reason.PROMPT_TOO_LONG });
  expect(Number(long.details.metadata.tokens)).toBeGreaterThan(Number(long.details.metadata.limit));
  const lora = await client.generate({ ...RED_CIRCLE, loras: [{ name: 'no-such-style' }] }).catch((thrown) => thrown);
  expect(lora).toMatchObject({ code: Code.NOT_FOUND, reason: Reason.UNKNOWN_LORA, details: { resource: { name: 'no-such-style' } } });
});

test('kill -9 of a node while real pictures are drawn: no caller error, the same bytes for every seed', async () => {
  const options = { callers: 24, count: 24, request: { prompt: RED_CIRCLE.prompt } };
  const undisturbed = await new Load(mesh().client, options).finished();
  expect(failures(undisturbed)).toEqual({});
  const load = new Load(mesh().client, options);
  await load.more(4);
  const victim = mesh().node('node-2');
  victim.kill('SIGKILL');
  const outcomes = await load.finished();
  expect(failures(outcomes)).toEqual({});
  expect(digests(outcomes)).toEqual(digests(undisturbed));
  await victim.exited;
  await mesh().revive(victim);
});
