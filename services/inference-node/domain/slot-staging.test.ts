/** Is the slot granted ahead of its end, and does the granted call wait for it? */
import { describe, expect, test } from 'vitest';
import { aged, BUSY, never, readySlot, TTL_MS, WINDOW_MS } from '../../../test/support/slot-world.js';

describe('staging', () => {
  test('grants ahead when the end is near, not before', async () => {
    const { clock, router, run } = readySlot();
    await run(200);
    const a = router();
    a.bid(aged(10));
    await clock.advance(200 - WINDOW_MS - 1);
    expect(a.grants).toEqual([]);
    await clock.advance(1);
    expect(a.grants).toHaveLength(1);
  });

  test('follows the prediction, later and sooner', async () => {
    const { clock, router, run } = readySlot();
    const lease = await run(200);
    const a = router();
    a.bid(aged(10));
    lease.expectEnd(1000);
    await clock.advance(900);
    expect(a.grants).toEqual([]);
    lease.expectEnd(905);
    expect(a.grants).toHaveLength(1);
  });

  test('lets the granted call wait and admits it when the slot frees', async () => {
    const { clock, slot, router, run } = readySlot();
    const lease = await run(WINDOW_MS);
    const a = router();
    a.bid(aged(10));
    const waiting = slot.take(a.last(), never);
    await clock.advance(25);
    lease.release();
    await expect(waiting).resolves.toMatchObject({ id: a.last(), waitedMs: 25 });
    expect(slot.snapshot.busyCount).toBe(1);
  });

  test('holds one call only', async () => {
    const { clock, slot, router, run } = readySlot();
    await run(WINDOW_MS);
    const [a, b] = [router(), router()];
    a.bid(aged(10));
    b.bid(aged(10));
    void slot.take(a.last(), never);
    await clock.advance(10 * TTL_MS);
    expect(b.grants).toEqual([]);
    await expect(slot.take(undefined, never)).rejects.toMatchObject(BUSY);
  });

  test('keeps the promise when the slot frees before the call has come', async () => {
    const { slot, router, run } = readySlot();
    const lease = await run(WINDOW_MS);
    const a = router();
    a.bid(aged(10));
    lease.release();
    await expect(slot.take(undefined, never)).rejects.toMatchObject(BUSY);
    await expect(slot.take(a.last(), never)).resolves.toMatchObject({ id: a.last() });
  });

  test('lapses while the request still runs', async () => {
    const { clock, router, run } = readySlot();
    await run(WINDOW_MS);
    const [a, b] = [router(), router()];
    a.bid(aged(10));
    b.bid(aged(5));
    await clock.advance(TTL_MS);
    expect(b.grants).toHaveLength(1);
  });

  test('forgets a waiting call that is cancelled; the next bid gets the slot', async () => {
    const { slot, router, run } = readySlot();
    const lease = await run(WINDOW_MS);
    const [a, b] = [router(), router()];
    a.bid(aged(10));
    b.bid(aged(5));
    const cancel = new AbortController();
    const waiting = slot.take(a.last(), cancel.signal);
    cancel.abort(new Error('gone'));
    await expect(waiting).rejects.toThrow('gone');
    expect(b.grants).toHaveLength(1);
    lease.release();
    await expect(slot.take(b.last(), never)).resolves.toMatchObject({ id: b.last() });
  });

  test('outlives the router that asked: the call stands for itself', async () => {
    const { slot, router, run } = readySlot();
    const lease = await run(WINDOW_MS);
    const a = router();
    a.bid(aged(10));
    const waiting = slot.take(a.last(), never);
    a.leave();
    lease.release();
    await expect(waiting).resolves.toMatchObject({ id: a.last() });
  });

  test('does not take a call that is over already', async () => {
    const { slot, router, run } = readySlot();
    await run(WINDOW_MS);
    const a = router();
    a.bid(aged(10));
    await expect(slot.take(a.last(), AbortSignal.abort(new Error('gone')))).rejects.toThrow('gone');
  });
});
