import { expect, test } from 'vitest';
import { restartDelayMs } from './restart-delay.js';

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
