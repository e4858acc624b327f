/** Two engines, one model: whichever node draws a request, it is the same picture. And stock diffusers would draw it as well. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { engine } from '#contracts';
import { latentShape } from '#model-package';
import { torchNoise } from '#noise';
import { packageRoot } from '#runtime';
import { diffusersCommand, diffusersEnv, diffusersFolder, diffusersPython, sayIfAbsent } from '../support/diffusers-engine.js';
import { type EngineProcess, startEngine } from '../support/engine-process.js';
import { modelDir } from '../support/model-folder.js';

// Importing torch and diffusers takes five seconds of a whole core.
vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });

const PROMPT_COUNT = 20;
/** Mean over all values of all pictures, in steps of 8 bits. */
const MEAN_TOLERANCE = 1;
const SIDE = 128;

const heldOut: readonly { readonly caption: string }[] = JSON.parse(
  readFileSync(path.join(packageRoot, 'libs/embedded-model/heldout.json'), 'utf8'),
);

describe.skipIf(sayIfAbsent('engine-diffusers beside engine-onnx'))('engine-diffusers and engine-onnx', () => {
  let engines: readonly EngineProcess[] = [];
  beforeAll(async () => {
    const onnx = path.join(packageRoot, 'dist/services/engine-onnx/main.js');
    engines = await Promise.all([
      startEngine({ command: [process.execPath, onnx] }),
      startEngine({ command: diffusersCommand, env: diffusersEnv }),
    ]);
    await Promise.all(engines.map((each) => each.load(modelDir)));
  });
  afterAll(() => Promise.all(engines.map((each) => each.close())).then(() => {}));

  test(`draw the same pictures from ${PROMPT_COUNT} prompts, with a LoRA too`, async () => {
    const means: number[] = [];
    for (let i = 0; i < PROMPT_COUNT; i++) {
      // Every 24th: half of them English, half Chinese.
      const { caption } = heldOut[i * 24] ?? expect.fail('too few captions');
      const loras = i % 5 === 0 ? [{ name: 'pastel', strength: 0.8 }] : [];
      const [one, other] = await Promise.all(engines.map((each) => drawn(each, { prompt: caption, seed: BigInt(i), loras })));
      means.push(meanDifference(one ?? new Uint8Array(), other ?? new Uint8Array()));
    }
    expect(means.length).toBe(PROMPT_COUNT);
    process.stdout.write(`largest mean difference of ${PROMPT_COUNT} pictures: ${Math.max(...means).toFixed(4)} of 255\n`);
    expect(Math.max(...means)).toBeLessThanOrEqual(MEAN_TOLERANCE);
  });
});

test.skipIf(sayIfAbsent('the Python tests of engine-diffusers'))(
  'the Python tests of engine-diffusers pass',
  { timeout: 300_000 }, // half a minute of one core
  async () => {
    const env = { ...process.env, ...diffusersEnv, OMP_NUM_THREADS: '1' };
    const args = ['-m', 'pytest', '-q', '-p', 'no:cacheprovider'];
    const { stdout } = await promisify(execFile)(diffusersPython, args, { cwd: diffusersFolder, env }).catch((error) =>
      expect.fail(`${error.stdout}${error.stderr}`.slice(-6000)),
    );
    expect(stdout).toMatch(/\d+ passed/);
  },
);

async function drawn(
  on: EngineProcess,
  { prompt, seed, loras }: { readonly prompt: string; readonly seed: bigint; readonly loras: engine.EngineGenerateRequest['loras'] },
): Promise<Uint8Array> {
  const latents = Buffer.from(torchNoise(seed, latentShape(SIDE, SIDE).elementCount).buffer);
  const request: engine.EngineGenerateRequest = {
    requestId: `agree-${seed}`,
    model: 'z-image-tiny',
    revision: '',
    prompt,
    negativePrompt: '',
    width: SIDE,
    height: SIDE,
    steps: 8,
    guidanceScale: 0,
    items: [{ seed, latents }],
    loras,
  };
  let rgb: Uint8Array | undefined;
  for await (const { event } of on.generate(request)) if (event?.$case === 'image') rgb = event.value.data; // to its end, when the engine is free
  return rgb ?? expect.fail('no picture came');
}

function meanDifference(a: Uint8Array, b: Uint8Array): number {
  expect(a.length).toBe(b.length);
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += Math.abs((a[i] ?? 0) - (b[i] ?? 0));
  return sum / a.length;
}
