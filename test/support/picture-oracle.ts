/** The scriptable engine's pictures are known without an engine: is this file the right one? */
import sharp from 'sharp';
import { scriptedPicture } from '../engines/scriptable/picture.js';
import type { Outcome } from './load.js';

/** Seeds of drawn pictures that show anything else than what was asked for. */
export async function wrongPictures(outcomes: readonly Outcome[]): Promise<number[]> {
  const wrong: number[] = [];
  for (const outcome of outcomes) {
    if (!outcome.ok) continue;
    const { seed, prompt, width = 0, height = 0 } = outcome.request;
    const pixels = await pixelsOf(outcome.data);
    if (!pixels.equals(scriptedPicture({ prompt, seed: BigInt(seed), width, height }))) wrong.push(seed);
  }
  return wrong;
}

export function pixelsOf(file: Uint8Array | undefined): Promise<Buffer> {
  return sharp(file).raw().toBuffer();
}
