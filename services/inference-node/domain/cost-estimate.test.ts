import { expect, test } from 'vitest';
import { CostEstimate } from './cost-estimate.js';

const SMALL = { model: 'm', width: 64, height: 64, steps: 2, imageCount: 1 };
const REAL = { model: 'm', width: 1000, height: 1000, steps: 10, imageCount: 1 };
const sample = (tookMs: number) => ({ tookMs, stepMs: tookMs / 10, tailMs: tookMs / 10 });

test('CostEstimate knows nothing before anything has run', () => {
  const estimate = new CostEstimate();
  expect(estimate.predictMs(REAL)).toBeUndefined();
  expect(estimate.usualStepMs(REAL)).toBeUndefined();
  expect(estimate.usualTailMs(REAL)).toBe(0);
});

test('CostEstimate scales with steps, pixels and images', () => {
  const estimate = new CostEstimate();
  estimate.learn(REAL, sample(1000));
  expect(estimate.predictMs({ model: 'm', width: 500, height: 1000, steps: 5, imageCount: 4 })).toBeCloseTo(1000);
  expect(estimate.usualStepMs({ ...REAL, width: 500 })).toBeCloseTo(50);
  expect(estimate.usualTailMs({ ...REAL, width: 500 })).toBeCloseTo(50);
});

test('CostEstimate forgets the guess when a real request has run', () => {
  const estimate = new CostEstimate();
  estimate.guess(SMALL, 500);
  expect(estimate.predictMs(SMALL)).toBeCloseTo(500);
  estimate.learn(REAL, sample(1000));
  expect(estimate.predictMs(REAL)).toBeCloseTo(1000);
  estimate.guess(SMALL, 500);
  expect(estimate.predictMs(REAL)).toBeCloseTo(1000);
});

test('CostEstimate is moved little by one stall and follows a lasting change', () => {
  const estimate = new CostEstimate();
  for (let i = 0; i < 10; i++) estimate.learn(REAL, sample(1000));
  estimate.learn(REAL, sample(60_000));
  expect(estimate.predictMs(REAL)).toBeCloseTo(1200);
  for (let i = 0; i < 40; i++) estimate.learn(REAL, sample(3000));
  expect(estimate.predictMs(REAL)).toBeGreaterThan(2900);
  for (let i = 0; i < 40; i++) estimate.learn(REAL, sample(1000));
  expect(estimate.predictMs(REAL)).toBeLessThan(1100);
});

test('CostEstimate soon outvotes a cold first picture', () => {
  const estimate = new CostEstimate();
  estimate.learn(REAL, sample(4000));
  for (let i = 0; i < 4; i++) estimate.learn(REAL, sample(1000));
  expect(estimate.predictMs(REAL)).toBeLessThan(2000);
});

test('CostEstimate learns each model apart', () => {
  const estimate = new CostEstimate();
  estimate.learn(REAL, sample(1000));
  expect(estimate.predictMs({ ...REAL, model: 'other' })).toBeUndefined();
  estimate.learn({ ...REAL, model: 'other' }, sample(4000));
  expect(estimate.predictMs(REAL)).toBeCloseTo(1000);
});
