import { expect, test } from 'vitest';
import { captionTable, imageTable } from './rotary.js';

const config = { theta: 256, axesDims: [4, 2, 2] };
const angles = (table: { cos: Float32Array; sin: Float32Array }, token: number) =>
  [0, 1, 2, 3].map((k) => Math.atan2(table.sin[token * 4 + k] ?? 0, table.cos[token * 4 + k] ?? 0));
const close = (values: number[]) => values.map((value) => expect.closeTo(value, 5));

test('captionTable() counts captions from 1 along the first axis', () => {
  expect(angles(captionTable(config, 2), 1)).toEqual(close([2, 2 / 16, 0, 0]));
});

test('imageTable() puts the picture after the caption, by row and column, and its padding at the origin', () => {
  const table = imageTable({ theta: 256, axesDims: [4, 2, 2] }, { rows: 2, columns: 2, paddedCount: 5, captionCount: 1 });
  expect(angles(table, 3)).toEqual(close([2, 2 / 16, 1, 1]));
  expect(angles(table, 4)).toEqual(close([0, 0, 0, 0]));
});
