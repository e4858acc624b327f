import { expect, test } from 'vitest';
import { allowedExecutionMs } from './execution-deadline.js';
import { restartDelayMs } from './restart-delay.js';

const LIMITS = { factor: 5, floorMs: 10_000, capMs: 600_000 };

test.each([
  ['nothing is known', undefined, 600_000],
  ['the prediction is short', 100, 10_000],
  ['the prediction is usual', 8000, 40_000],
  ['the prediction is long', 500_000, 600_000],
])('allowedExecutionMs: %s', (_what, predictedMs, allowedMs) => {
  expect(allowedExecutionMs(predictedMs, LIMITS)).toBe(allowedMs);
});

test('restartDelayMs: three quick tries, then doubling to the maximum', () => {
  const policy = { quickDelayMs: 100, slowDelayMs: 1000, maxDelayMs: 60_000 };
  const delays = [1, 2, 3, 4, 5, 6, 10, 50].map((count) => restartDelayMs(count, policy, () => 0.5));
  expect(delays).toEqual([0, 100, 200, 1000, 2000, 4000, 60_000, 60_000]);
});

test('restartDelayMs: slow delays vary by a fifth, so that nodes do not restart together', () => {
  const policy = { quickDelayMs: 100, slowDelayMs: 1000, maxDelayMs: 60_000 };
  expect(restartDelayMs(4, policy, () => 0)).toBe(800);
  expect(restartDelayMs(4, policy, () => 0.999)).toBeCloseTo(1199.6);
});
