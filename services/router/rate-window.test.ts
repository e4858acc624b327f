import { expect, test } from 'vitest';
import { RateWindow } from './rate-window.js';

test('perSecond() is the mean of the last ten seconds', () => {
  const rate = new RateWindow(0);
  for (let second = 0; second < 60; second++) for (let i = 0; i < 4; i++) rate.add(0.5, second * 1000 + i * 250);
  expect(rate.perSecond(59_999)).toBeCloseTo(2, 1);
});

test('perSecond() of a young router is over its own life, of a very young one over a second', () => {
  const rate = new RateWindow(500);
  rate.add(6, 600);
  expect(rate.perSecond(700)).toBe(6);
  expect(rate.perSecond(3500)).toBe(2);
});

test('what is ten seconds old no longer counts, however long nothing happened', () => {
  const rate = new RateWindow(0);
  rate.add(9, 20_000);
  expect(rate.perSecond(29_999)).toBeCloseTo(0.9, 3);
  expect(rate.perSecond(30_000)).toBe(0);
  rate.add(9, 500_000);
  expect(rate.perSecond(500_000)).toBe(1);
});
