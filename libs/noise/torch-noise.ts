/**
 * The noise a picture starts from: what `torch.randn(shape, generator=Generator("cpu").manual_seed(seed))`
 * gives, bit for bit, so that a seed draws the same picture here as in diffusers.
 *
 * torch has two ways. Sixteen values or more: fill the buffer with 24-bit uniforms, then turn every
 * block of 16 into normals in place, the first 8 against the last 8 (Box and Muller 1958); a ragged
 * end draws its last 16 values afresh. Fewer: pairs in float64 from 53-bit uniforms.
 */
import { MersenneTwister } from './mersenne-twister.js';
import { log32, sinCos32 } from './single-precision.js';

const BLOCK = 16;
const HALF = 8;
const TWO_PI_32 = Math.fround(2 * Math.PI);

/** Standard normal float32 values; `seed` counts modulo 2^32. Throws RangeError on a count that is no natural number. */
export function torchNoise(seed: bigint, elementCount: number): Float32Array {
  if (!Number.isSafeInteger(elementCount) || elementCount < 0) {
    throw new RangeError(`elementCount: expected a natural number, got ${elementCount}`);
  }
  const generator = new MersenneTwister(seed);
  return elementCount < BLOCK ? fewNormals(generator, elementCount) : manyNormals(generator, elementCount);
}

function manyNormals(generator: MersenneTwister, count: number): Float32Array {
  const values = new Float32Array(count);
  fillUniform(generator, values);
  for (let start = 0; start + BLOCK <= count; start += BLOCK) boxMuller(values.subarray(start, start + BLOCK));
  if (count % BLOCK !== 0) {
    const end = values.subarray(count - BLOCK);
    fillUniform(generator, end);
    boxMuller(end);
  }
  return values;
}

function fillUniform(generator: MersenneTwister, values: Float32Array): void {
  for (let i = 0; i < values.length; i++) values[i] = (generator.next32() & 0xffffff) / 2 ** 24;
}

function boxMuller(block: Float32Array): void {
  for (let i = 0; i < HALF; i++) {
    const u1 = 1 - (block[i] ?? 0);
    const u2 = block[i + HALF] ?? 0;
    const radius = Math.fround(Math.sqrt(-2 * log32(u1)));
    const { sin, cos } = sinCos32(Math.fround(TWO_PI_32 * u2));
    // Adding zero turns -0 into 0, as torch's scaling by mean 0 does.
    block[i] = radius * cos + 0;
    block[i + HALF] = radius * sin + 0;
  }
}

function fewNormals(generator: MersenneTwister, count: number): Float32Array {
  const values = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const u1 = uniform53(generator);
    const u2 = uniform53(generator);
    const radius = Math.sqrt(-2 * Math.log1p(-u2));
    const theta = 2 * Math.PI * u1;
    values[i] = radius * Math.cos(theta);
    if (i + 1 < count) values[i + 1] = radius * Math.sin(theta);
  }
  return values;
}

function uniform53(generator: MersenneTwister): number {
  const high = generator.next32() & 0x1fffff; // the low 53 of 64 bits
  const low = generator.next32();
  return (high * 2 ** 32 + low) / 2 ** 53;
}
