import { expect, test } from 'vitest';
import { systemClock } from '#runtime';
import { ManualClock } from '../../test/support/manual-clock.js';
import { createEventLoopLag } from './event-loop-lag.js';
import { createMetrics } from './metrics.js';

/** A clock whose timers run late, as after a freeze. */
class FreezableClock extends ManualClock {
  #lateMs = 0;
  override now(): number {
    return super.now() + this.#lateMs;
  }
  freeze(ms: number): void {
    this.#lateMs += ms;
  }
}

test('a freeze shows before the overdue tick has run, and is remembered after it', async () => {
  const clock = new FreezableClock();
  const lag = createEventLoopLag({ clock, tickMs: 100, windowMs: 1000 });
  await lag.start();
  await clock.advance(500);
  expect(lag.lagMs()).toBe(0);
  clock.freeze(4000);
  expect(lag.lagMs()).toBe(3900); // due 100 ms after the last tick
  await clock.advance(100);
  expect(lag.lagMs()).toBe(4000);
  await clock.advance(900);
  expect(lag.lagMs()).toBe(4000);
  await lag.close();
});

test('a freeze is forgotten when two windows have passed', async () => {
  const clock = new FreezableClock();
  const lag = createEventLoopLag({ clock, tickMs: 100, windowMs: 1000 });
  await lag.start();
  clock.freeze(4000);
  await clock.advance(1000);
  expect(lag.lagMs()).toBeGreaterThan(0);
  await clock.advance(2000);
  expect(lag.lagMs()).toBe(0);
  await lag.close();
});

test('it measures nothing before start and leaves no timer after close', async () => {
  const clock = new ManualClock();
  const lag = createEventLoopLag({ clock });
  expect(lag.lagMs()).toBe(0);
  await lag.start();
  expect(clock.pendingCount).toBe(1);
  await lag.close();
  expect(clock.pendingCount).toBe(0);
  expect(lag.lagMs()).toBe(0);
});

test('a loop that really blocks is noticed by whoever runs next', async () => {
  const lag = createEventLoopLag({ clock: systemClock, tickMs: 5 });
  await lag.start();
  const endAt = systemClock.now() + 120;
  while (systemClock.now() < endAt);
  expect(lag.lagMs()).toBeGreaterThan(100);
  await lag.close();
});

test('it shows as a gauge, in seconds', async () => {
  const clock = new FreezableClock();
  const metrics = createMetrics({ service: 's' });
  const lag = createEventLoopLag({ clock, metrics });
  await lag.start();
  clock.freeze(2600);
  expect(await metrics.render()).toContain('dmesh_event_loop_lag_seconds{service="s"} 2.5');
  await lag.close();
});
