import { expect, test } from 'vitest';
import { allowedExecutionMs, sizeRatio } from './execution-limit.js';

const LIMITS = { factor: 5, floorMs: 10_000, capMs: 120_000 };
const DEFAULTS = { width: 1024, height: 1024, steps: 8, guidanceScale: 0 };

test.each([
  ['nothing is known', undefined, 120_000],
  ['the prediction is short', 100, 10_000],
  ['the prediction is usual', 8000, 40_000],
  ['the prediction is long', 100_000, 120_000],
])('allowedExecutionMs: %s', (_what, predictedMs, allowedMs) => {
  expect(allowedExecutionMs(predictedMs, 1, LIMITS)).toBe(allowedMs);
});

test('the cap is for the size of the defaults: four pictures have four times as much, a small one no less', () => {
  expect(sizeRatio({ ...DEFAULTS, imageCount: 4 }, DEFAULTS)).toBeCloseTo(4);
  expect(sizeRatio({ ...DEFAULTS, width: 64, height: 64, imageCount: 1 }, DEFAULTS)).toBe(1);
  expect(allowedExecutionMs(100_000, 4, LIMITS)).toBe(480_000);
});
