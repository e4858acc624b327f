/** The same numbers as stock diffusers on PyTorch: vectors computed there, compared here. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { inflateSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { latentShape } from '#model-package';
import { torchNoise } from '#noise';
import { modelDir, vectorsDir } from '../../../test/support/model-folder.js';
import type { Drawn, Picture } from './draw.js';
import { Pipeline } from './pipeline.js';
import { promptEncoder } from './prompt.js';

interface TokenVector {
  readonly prompt: string;
  readonly ids: readonly number[];
}

interface PictureVector {
  readonly name: string;
  readonly prompt: string;
  readonly width: number;
  readonly height: number;
  readonly seed: string;
  readonly steps: number;
  readonly tokens: number;
  readonly lora?: string;
  readonly strength?: number;
  /** base64 of little-endian float32 */
  readonly latents: string;
  /** base64 of deflated RGB */
  readonly rgbDeflated: string;
}

const LATENT_TOLERANCE = 1e-4;
/** Where torch and onnxruntime differ in the last bits, rounding may fall to either side. */
const RGB_TOLERANCE = 1;

const vectorsOf = <Row>(name: string): readonly Row[] => JSON.parse(readFileSync(path.join(vectorsDir, `${name}.json`), 'utf8'));
const modelJson = (file: string) => JSON.parse(readFileSync(path.join(modelDir, file), 'utf8'));
const { maxPromptTokens } = modelJson('mesh.json').limits;

test.each(vectorsOf<TokenVector>('tokens'))('promptEncoder() gives transformers’ ids for $prompt', ({ prompt, ids }) => {
  const encode = promptEncoder(modelJson('tokenizer/tokenizer.json'), modelJson('tokenizer/tokenizer_config.json'));
  expect(encode(prompt)).toEqual(ids);
});

describe('Pipeline', () => {
  let pipeline: Pipeline;
  beforeAll(async () => {
    pipeline = await Pipeline.load(modelDir, { threadCount: 1, adapterSetCount: 1 });
  });
  afterAll(() => pipeline.release());

  const drawVector = async (vector: PictureVector): Promise<{ drawn: Drawn; picture: Picture }> => {
    const pictures: Picture[] = [];
    const noise = torchNoise(BigInt(vector.seed), latentShape(vector.width, vector.height).elementCount);
    const loras = vector.lora === undefined ? [] : [{ name: vector.lora, strength: vector.strength ?? 1 }];
    const drawn = await pipeline.draw(
      { ...vector, noises: [noise], loras },
      { now: () => 0, checkpoint: () => {}, mayPause: async () => {}, onStep: () => {}, onImage: (picture) => pictures.push(picture) },
    );
    return { drawn, picture: pictures[0] ?? expect.fail('nothing was drawn') };
  };

  test.each(vectorsOf<PictureVector>('pipeline').filter((vector) => vector.tokens <= maxPromptTokens))(
    'draws what diffusers draws: $name',
    async (vector) => {
      const { drawn, picture } = await drawVector(vector);
      expect(drawn.promptTokens).toBe(vector.tokens);
      const latents = new Float32Array(new Uint8Array(Buffer.from(vector.latents, 'base64')).buffer);
      expect(largestDifference(picture.latents, latents)).toBeLessThanOrEqual(LATENT_TOLERANCE);
      const rgb = inflateSync(Buffer.from(vector.rgbDeflated, 'base64'));
      expect(largestDifference(picture.rgb, rgb)).toBeLessThanOrEqual(RGB_TOLERANCE);
    },
  );
});

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs((a[i] ?? 0) - (b[i] ?? 0)));
  return largest;
}
