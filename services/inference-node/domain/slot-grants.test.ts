/** For how long is the slot promised to a grant, and what of routers that do not use theirs? */
import { describe, expect, test } from 'vitest';
import { aged, BUSY, never, readySlot, TTL_MS, urgent } from '../../../test/support/slot-world.js';

describe('a grant', () => {
  test('lapses after its time, not before, and goes to the next bid', async () => {
    const { clock, slot, router } = readySlot();
    const [a, b] = [router(), router()];
    a.bid(aged(10));
    b.bid(aged(5));
    await clock.advance(TTL_MS - 1);
    expect(b.grants).toEqual([]);
    await clock.advance(1);
    expect(b.grants).toHaveLength(1);
    await expect(slot.take(a.last(), never)).rejects.toMatchObject(BUSY);
    expect(a.grants).toHaveLength(1);
  });

  test('that is used does not lapse', async () => {
    const { clock, router, run } = readySlot();
    const [a, b] = [router(), router()];
    a.bid(aged(10));
    await run(10_000, a.last());
    b.bid(aged(5));
    await clock.advance(2 * TTL_MS);
    expect(b.grants).toEqual([]);
  });

  test('that is declined goes to the next bid at once', () => {
    const { router } = readySlot();
    const [a, b] = [router(), router()];
    a.bid(aged(10));
    b.bid(aged(5));
    a.decline(a.last());
    expect(b.grants).toHaveLength(1);
    expect(b.last()).toBeGreaterThan(a.last());
  });

  test('is not given up by a decline of another router, or of another grant', () => {
    const { router } = readySlot();
    const [a, b] = [router(), router()];
    a.bid(aged(10));
    b.bid(aged(5));
    b.decline(a.last());
    a.decline(a.last() + 1n);
    expect(b.grants).toEqual([]);
  });

  test('is void when its router leaves', () => {
    const { router } = readySlot();
    const [a, b] = [router(), router()];
    a.bid(aged(10));
    b.bid(aged(5));
    a.leave();
    expect(b.grants).toHaveLength(1);
  });

  test('works once', async () => {
    const { slot, router, run } = readySlot();
    const a = router();
    a.bid(aged(10));
    await run(100, a.last());
    await expect(slot.take(a.last(), never)).rejects.toMatchObject(BUSY);
  });
});

describe('a router that does not use its grants', () => {
  test('is passed over for longer each time, and heard again after a grant it used', async () => {
    const { clock, router, run } = readySlot();
    const hung = router();
    const pausesMs: number[] = [];
    const pauseMs = async () => {
      hung.bid(aged(10));
      const lapsedAt = clock.now();
      const before = hung.grants.length;
      while (hung.grants.length === before) await clock.advance(TTL_MS);
      return clock.now() - lapsedAt;
    };
    hung.bid(aged(10));
    for (let round = 0; round < 6; round++) {
      await clock.advance(TTL_MS);
      pausesMs.push(await pauseMs());
    }
    expect(pausesMs).toEqual([1, 2, 4, 8, 16, 16].map((ttls) => ttls * TTL_MS));
    (await run(100, hung.last())).release();
    hung.bid(aged(10));
    expect(hung.grants).toHaveLength(8);
  });

  test('leaves the slot to the others, and to calls without a grant', async () => {
    const { clock, router, run } = readySlot();
    const [hung, honest] = [router(), router()];
    hung.bid(urgent({ rank: 0 }));
    await clock.advance(TTL_MS);
    hung.bid(urgent({ rank: 0 }));
    (await run(100)).release();
    honest.bid(aged(10));
    (await run(100, honest.last())).release();
    expect([hung.grants.length, honest.grants.length]).toEqual([1, 1]);
  });

  test('may decline what it has no use for', () => {
    const { router } = readySlot();
    const a = router();
    for (let round = 0; round < 5; round++) {
      a.bid(aged(10));
      a.decline(a.last());
    }
    expect(a.grants).toHaveLength(5);
    expect(a.lapsed).toEqual([]);
  });

  test('is reported', async () => {
    const { clock, router } = readySlot();
    const a = router();
    a.bid(aged(10));
    await clock.advance(TTL_MS);
    expect(a.lapsed).toEqual([{ leaseId: a.last(), pauseMs: TTL_MS }]);
  });
});
