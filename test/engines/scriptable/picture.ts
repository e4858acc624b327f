/**
 * What the scriptable engine draws: bytes that depend on prompt, seed and size and on nothing else,
 * so that a test knows the right picture without an engine. Cheap on purpose: a tile of hash noise,
 * repeated, costs one memory copy.
 */

export interface PictureKey {
  readonly prompt: string;
  readonly seed: bigint;
  readonly width: number;
  readonly height: number;
}

/** Not a multiple of 3, so that neighbouring pixels differ in colour. */
const TILE_BYTES = 256;

/** 8-bit RGB, row by row. With `incompressible` every byte is noise, for tests that need large files. */
export function scriptedPicture(key: PictureKey, incompressible = false): Buffer {
  const byteCount = key.width * key.height * 3;
  const data = Buffer.alloc(byteCount);
  const next = noiseBytes(hashOf(key));
  const filled = incompressible ? byteCount : Math.min(TILE_BYTES, byteCount);
  for (let i = 0; i < filled; i++) data[i] = next();
  for (let done = filled; done < byteCount; done *= 2) data.copyWithin(done, 0, Math.min(done, byteCount - done));
  return data;
}

/** FNV-1a over everything that decides the picture. */
function hashOf({ prompt, seed, width, height }: PictureKey): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(`${seed} ${width}x${height} ${prompt}`)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

/** xorshift32. */
function noiseBytes(seed: number): () => number {
  let state = seed === 0 ? 1 : seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state & 0xff;
  };
}
