/** One node with the embedded engine, called directly: the picture shows what was asked for. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import sharp from 'sharp';
import { expect, test } from 'vitest';
import { packageRoot } from '#runtime';
import { judge } from '../../libs/embedded-model/judge.js';
import { modelDir } from '../support/model-folder.js';
import { closeAll, type NodeProcess, startNode } from '../support/node-process.js';
import { useShared } from '../support/shared.js';

const scenes = JSON.parse(readFileSync(path.join(packageRoot, 'libs/embedded-model/scenes.json'), 'utf8'));

let node: NodeProcess;
useShared(async () => {
  node = await startNode({ env: { DMESH_NODE_ENGINE: 'onnx', DMESH_NODE_MODEL_DIR: modelDir } });
}, closeAll);

test.each([
  ['a big red circle on a blue background', { colour: 'red', background: 'blue' }],
  ['a green square on a white background', { colour: 'green', background: 'white' }],
])('"%s" shows it', async (prompt, expected) => {
  const { response } = await node.generate({ prompt, seed: 5n });
  const { data, info } = await sharp(response.images[0]?.data).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  expect(judge(data, info.width, info.height, scenes)).toMatchObject(expected);
  expect(response.used).toMatchObject({ model: 'z-image-tiny', steps: 8, seed: 5n });
  expect(response.used?.determinismClass).not.toBe('');
});

test('a killed engine comes back and draws the same bytes', async () => {
  const draw = async () => Buffer.from((await node.generate({ seed: 9n })).response.images[0]?.data ?? []);
  const before = await draw();
  process.kill(node.enginePids().at(-1) ?? 0, 'SIGKILL');
  await node.line('engine ready', 2);
  expect((await draw()).equals(before)).toBe(true);
});
