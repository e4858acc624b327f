import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { vectorsDir } from '../../test/support/model-folder.js';
import { torchNoise } from './torch-noise.js';

interface NoiseVector {
  readonly seed: string;
  readonly shape: readonly number[];
  /** base64 of little-endian float32 */
  readonly first: string;
  readonly last: string;
  readonly sha256: string;
}

const vectors: readonly NoiseVector[] = JSON.parse(readFileSync(`${vectorsDir}/noise.json`, 'utf8'));
const bytesOf = (values: Float32Array) => Buffer.from(values.buffer, values.byteOffset, values.byteLength);

test.each(vectors)('torchNoise($seed, $shape) is torch.randn bit for bit', ({ seed, shape, first, last, sha256 }) => {
  const values = torchNoise(
    BigInt(seed),
    shape.reduce((a, b) => a * b),
  );
  const bytes = bytesOf(values);
  expect(bytes.subarray(0, Buffer.byteLength(first, 'base64')).toString('base64')).toBe(first);
  expect(bytes.subarray(-Buffer.byteLength(last, 'base64')).toString('base64')).toBe(last);
  expect(createHash('sha256').update(bytes).digest('hex')).toBe(sha256);
});

test('torchNoise() reads the low 32 bits of a seed', () => {
  expect(torchNoise(2n ** 32n + 5n, 32)).toEqual(torchNoise(5n, 32));
});

test('torchNoise() refuses a count that is no natural number', () => {
  expect(() => torchNoise(1n, 2.5)).toThrow('expected a natural number, got 2.5');
  expect(() => torchNoise(1n, -1)).toThrow(RangeError);
  expect(torchNoise(1n, 0)).toHaveLength(0);
});
