/** When does the slot take nobody? */
import { describe, expect, test } from 'vitest';
import { Code, Reason } from '#core';
import { aged, never, readySlot, WINDOW_MS } from '../../../test/support/slot-world.js';

const NOT_READY = { code: Code.UNAVAILABLE, reason: Reason.ENGINE_NOT_READY };
const DRAINING = { code: Code.UNAVAILABLE, reason: Reason.DRAINING };

describe('an engine that is not ready', () => {
  test('takes no calls and gives no grants, until it is', async () => {
    const { slot, router } = readySlot();
    slot.setReady(false);
    const a = router();
    a.bid(aged(10));
    await expect(slot.take(undefined, never)).rejects.toMatchObject(NOT_READY);
    expect(a.grants).toEqual([]);
    slot.setReady(true);
    expect(a.grants).toHaveLength(1);
  });
});

test('losing the engine voids grants and sends the waiting call away, to be placed elsewhere', async () => {
  const { slot, router, run } = readySlot();
  const lease = await run(WINDOW_MS);
  const a = router();
  a.bid(aged(10));
  const waiting = slot.take(a.last(), never);
  slot.setReady(false);
  await expect(waiting).rejects.toMatchObject(NOT_READY);
  lease.release();
  expect(slot.snapshot).toEqual({ slotCount: 1, busyCount: 0, accepting: false, nextFreeMs: 0, maxPauseMs: 0 });

  slot.setReady(true);
  a.bid(aged(10));
  slot.setReady(false);
  slot.setReady(true);
  await expect(slot.take(undefined, never)).resolves.toBeDefined();
});

describe('a drain', () => {
  test('refuses calls and voids unused grants', async () => {
    const { slot, router } = readySlot();
    const a = router();
    a.bid(aged(10));
    slot.setDraining(true);
    await expect(slot.take(a.last(), never)).rejects.toMatchObject(DRAINING);
    expect(slot.snapshot).toMatchObject({ accepting: false, busyCount: 0 });
  });

  test('serves who runs and who waits', async () => {
    const { slot, router, run } = readySlot();
    const lease = await run(WINDOW_MS);
    const a = router();
    a.bid(aged(10));
    const waiting = slot.take(a.last(), never);
    slot.setDraining(true);
    lease.release();
    await expect(waiting).resolves.toMatchObject({ id: a.last() });
  });

  test('sends the waiting call away when the engine is lost meanwhile', async () => {
    const { slot, router, run } = readySlot();
    await run(WINDOW_MS);
    const a = router();
    a.bid(aged(10));
    const waiting = slot.take(a.last(), never);
    slot.setDraining(true);
    slot.setReady(false);
    await expect(waiting).rejects.toMatchObject(NOT_READY);
  });

  test('that is taken back grants again', () => {
    const { slot, router } = readySlot();
    slot.setDraining(true);
    const a = router();
    a.bid(aged(10));
    expect(a.grants).toEqual([]);
    slot.setDraining(false);
    expect(a.grants).toHaveLength(1);
  });
});
