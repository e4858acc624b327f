import { expect, test } from 'vitest';
import { eulerSteps } from './schedule.js';

test('eulerSteps(8, 3) passes the noise levels of Z-Image-Turbo', () => {
  const sigmas = [1, 0.9545454, 0.9, 0.8333333, 0.75, 0.6428571, 0.5, 0.3];
  const steps = eulerSteps(8, 3);
  steps.forEach(({ time }, i) => {
    expect(time).toBeCloseTo(1 - (sigmas[i] ?? 0), 6);
  });
  expect(steps.at(-1)?.sigmaDelta).toBeCloseTo(-0.3, 6);
});

test.each([
  [1, 3],
  [50, 3],
  [4, 1],
  [20, 6],
])('eulerSteps(%d, %d) goes from noise to picture and no further', (count, shift) => {
  const steps = eulerSteps(count, shift);
  expect(steps).toHaveLength(count);
  expect(steps[0]?.time).toBe(0);
  expect(steps.reduce((sum, step) => sum + step.sigmaDelta, 0)).toBeCloseTo(-1, 5);
  expect(steps.every((step) => step.sigmaDelta < 0)).toBe(true);
});
