/** The scriptable engine's pictures are known without an engine: is this file the right one? */
import sharp from 'sharp';
import { scriptedPicture } from '../engines/scriptable/picture.js';
import type { Outcome } from './load.js';

export interface Asked {
  readonly prompt: string;
  readonly seed: number;
  readonly width: number;
  readonly height: number;
}

/** Seeds of drawn pictures that show anything else than what was asked for. */
export async function wrongPictures(outcomes: readonly Outcome[]): Promise<number[]> {
  const wrong: number[] = [];
  for (const outcome of outcomes) {
    if (!outcome.ok) continue;
    const { seed, prompt, width = 0, height = 0 } = outcome.request;
    if (!(await shows(outcome.data, { prompt, seed, width, height }))) wrong.push(seed);
  }
  return wrong;
}

/** Whether this file is the picture that the scriptable engine draws for this. */
export async function shows(file: Uint8Array, { seed, ...asked }: Asked): Promise<boolean> {
  const pixels = await pixelsOf(file);
  return pixels.equals(scriptedPicture({ ...asked, seed: BigInt(seed) }));
}

export function pixelsOf(file: Uint8Array | undefined): Promise<Buffer> {
  return sharp(file).raw().toBuffer();
}
