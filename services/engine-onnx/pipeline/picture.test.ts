import { expect, test } from 'vitest';
import { isBlank, isFinitePicture, toRgb } from './picture.js';

test('toRgb() interleaves, clips and rounds', () => {
  const image = Float32Array.of(-1, 1, /* green */ -7, 7, /* blue */ 0, 0.999);
  expect([...toRgb(image)]).toEqual([0, 0, 128, 255, 255, 255]);
});

test.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])('isFinitePicture() sees one %d', (value) => {
  const values = new Float32Array(1000).fill(3e38);
  expect(isFinitePicture(values)).toBe(true);
  values[500] = value;
  expect(isFinitePicture(values)).toBe(false);
});

test('isBlank() is true for one flat colour, whichever, and for nothing else', () => {
  const flat = Uint8ClampedArray.from({ length: 300 }, (_, i) => [255, 0, 40][i % 3] ?? 0);
  expect(isBlank(new Uint8ClampedArray(300))).toBe(true);
  expect(isBlank(flat)).toBe(true);
  flat.fill(255, 0, 90);
  expect(isBlank(flat)).toBe(false);
});
