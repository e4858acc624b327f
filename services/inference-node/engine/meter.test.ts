import { expect, test } from 'vitest';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { CostEstimate } from '../domain/cost-estimate.js';
import type { Drawable } from './engine-request.js';
import { Meter } from './meter.js';
import { Watchdog } from './watchdog.js';

const drawable = { width: 1000, height: 1000, steps: 4, imageCount: 2 } as Drawable;

test('Meter foresees the end from the pace of the steps and the usual tail of each picture', async () => {
  const clock = new ManualClock();
  const estimate = new CostEstimate();
  estimate.learn(drawable, { tookMs: 900, stepMs: 100, tailMs: 50 });
  const meter = new Meter(drawable, { clock, estimate, startedAt: 0 });
  expect(meter.expectedEndAt()).toBeCloseTo(900);
  await clock.advance(300); // text encoding, and a first step
  expect(meter.step()).toBe(300);
  expect(meter.expectedEndAt()).toBeCloseTo(300 + 7 * 100 + 2 * 50); // the usual pace, as one step tells nothing
  await clock.advance(200);
  meter.step();
  expect(meter.expectedEndAt()).toBeCloseTo(500 + 6 * 200 + 2 * 50);
  for (let i = 0; i < 3; i++) {
    await clock.advance(200);
    meter.step();
  }
  expect(meter.expectedEndAt()).toBeCloseTo(1100 + 3 * 200 + 50); // the first picture lies behind
  await clock.advance(70);
  expect(meter.sample()).toEqual({ tookMs: 1170, stepMs: 200, tailMs: 70 });
});

test('Watchdog bites when it is not fed in time, not before, and not after its stop', async () => {
  const clock = new ManualClock();
  let bites = 0;
  const watchdog = new Watchdog(clock, 100, () => bites++);
  await clock.advance(99);
  watchdog.feed();
  await clock.advance(99);
  expect(bites).toBe(0);
  await clock.advance(1);
  expect(bites).toBe(1);
  watchdog.feed();
  watchdog.stop();
  await clock.advance(1000);
  expect(bites).toBe(1);
  expect(clock.pendingCount).toBe(0);
});
