import { expect, test } from 'vitest';
import { ManualClock } from '../../test/support/manual-clock.js';
import { watchParent } from './parent-watch.js';

test('watchParent() notices within half a second, once, and looks no more', async () => {
  const clock = new ManualClock();
  let alive = true;
  let goneCount = 0;
  watchParent(
    () => alive,
    clock,
    () => goneCount++,
  );
  await clock.advance(5000);
  expect(goneCount).toBe(0);
  alive = false;
  await clock.advance(500);
  expect(goneCount).toBe(1);
  expect(clock.pendingCount).toBe(0);
});

test('watchParent() stops when told', async () => {
  const clock = new ManualClock();
  const stop = watchParent(
    () => true,
    clock,
    () => expect.fail('the parent is alive'),
  );
  stop();
  expect(clock.pendingCount).toBe(0);
});
