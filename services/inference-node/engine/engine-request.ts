/** A resolved request as the engine wants it: every picture with its own seed and its own noise. */
import type { engine } from '#contracts';
import { latentShape } from '#model-package';
import { torchNoise } from '#noise';

export interface Drawable {
  readonly requestId: string;
  readonly model: string;
  readonly revision: string;
  readonly prompt: string;
  readonly negativePrompt: string;
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  readonly guidanceScale: number;
  readonly seed: bigint;
  readonly imageCount: number;
  readonly loras: readonly { readonly name: string; readonly strength: number }[];
}

/** Seed of picture i: seed + i, wrapping like the uint64 it is. */
export function seedOfImage(seed: bigint, imageIndex: number): bigint {
  return BigInt.asUintN(64, seed + BigInt(imageIndex));
}

export function engineRequest(drawable: Drawable): engine.EngineGenerateRequest {
  const { seed, imageCount, loras, ...rest } = drawable;
  const { elementCount } = latentShape(drawable.width, drawable.height);
  const items = Array.from({ length: imageCount }, (_, imageIndex) => {
    const itemSeed = seedOfImage(seed, imageIndex);
    const noise = torchNoise(itemSeed, elementCount);
    return { seed: itemSeed, latents: new Uint8Array(noise.buffer, noise.byteOffset, noise.byteLength) };
  });
  return { ...rest, items, loras: loras.map((lora) => ({ ...lora })) };
}
