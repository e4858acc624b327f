import { expect, test } from 'vitest';
import { fromTokens, padded, tokenCountOf, toTokens } from './patches.js';

const grid = { channels: 2, rows: 4, columns: 6 };
const latents = Float32Array.from({ length: 48 }, (_, i) => i);

test('toTokens() puts a 2 by 2 patch into a token as row, column, channel', () => {
  // channel c at (row, column) holds 24c + 6 row + column; the second patch starts at column 2
  expect([...toTokens(latents, grid).subarray(8, 16)]).toEqual([2, 26, 3, 27, 8, 32, 9, 33]);
});

test('fromTokens() undoes toTokens(), padding aside', () => {
  const tokens = toTokens(latents, grid);
  expect(tokenCountOf(grid)).toBe(6);
  expect(tokens).toHaveLength(padded(6) * 8);
  expect(tokens.subarray(48).every((value) => value === 0)).toBe(true);
  expect(fromTokens(tokens, grid)).toEqual(latents);
});

test.each([
  [1, 32],
  [32, 32],
  [33, 64],
])('padded(%d) is %d', (count, expected) => expect(padded(count)).toBe(expected));
