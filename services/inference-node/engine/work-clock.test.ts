import { expect, test } from 'vitest';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { WorkClock } from './work-clock.js';

test('time and timers stand still while stopped, and go on where they were', async () => {
  const clock = new ManualClock();
  const work = new WorkClock(clock);
  let fired = 0;
  work.schedule(100, () => fired++);
  await clock.advance(40);
  work.stop();
  work.stop();
  const cancel = work.schedule(10, () => fired++);
  work.schedule(30, () => fired++);
  await clock.advance(1000);
  expect([work.now(), work.stopped, fired]).toEqual([40, true, 0]);
  cancel();
  expect(work.go()).toBe(1000);
  expect(work.go()).toBe(0);
  await clock.advance(30);
  expect([work.now(), fired]).toEqual([70, 1]);
  await clock.advance(29);
  expect(fired).toBe(1);
  await clock.advance(1);
  expect(fired).toBe(2);
  expect(clock.pendingCount).toBe(0);
});
