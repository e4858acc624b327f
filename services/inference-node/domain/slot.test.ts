/** Who has the slot, and what do routers hear of it? */
import { describe, expect, test } from 'vitest';
import { seededRandom } from '../../../test/support/seeded-random.js';
import { aged, BUSY, never, readySlot, TTL_MS } from '../../../test/support/slot-world.js';
import type { Lease } from './slot.js';

describe('an idle slot', () => {
  test('is taken by whoever calls, and who comes second is told to come back', async () => {
    const { slot, run } = readySlot();
    const lease = await run(200);
    await expect(slot.take(undefined, never)).rejects.toMatchObject({ ...BUSY, details: { retryDelayMs: 200 } });
    lease.release();
    await expect(slot.take(undefined, never)).resolves.toBeDefined();
  });

  test('is granted to a bid at once', () => {
    const { router } = readySlot();
    const a = router();
    a.bid(aged(10));
    expect(a.grants).toEqual([{ leaseId: 100n, ttlMs: TTL_MS }]);
  });

  test('is granted once to a bid, however large its backlog', async () => {
    const { router, run } = readySlot();
    const a = router();
    a.bid(aged(10));
    (await run(100, a.last())).release();
    expect(a.grants).toHaveLength(1);
  });

  test('is not granted to a bid of no backlog', () => {
    const { router } = readySlot();
    const a = router();
    a.bid(undefined);
    expect(a.grants).toEqual([]);
  });

  test('that is promised refuses calls without the grant', async () => {
    const { slot, router } = readySlot();
    const a = router();
    a.bid(aged(10));
    await expect(slot.take(undefined, never)).rejects.toMatchObject(BUSY);
    await expect(slot.take(99n, never)).rejects.toMatchObject(BUSY);
    await expect(slot.take(a.last(), never)).resolves.toMatchObject({ id: 100n, waitedMs: 0 });
  });

  test('is taken even with a grant that has lapsed, as by any caller', async () => {
    const { clock, slot, router } = readySlot();
    const a = router();
    a.bid(aged(10));
    await clock.advance(TTL_MS);
    await expect(slot.take(a.last(), never)).resolves.toMatchObject({ id: 101n });
  });
});

describe('a lease', () => {
  test('frees the slot once: a late release cannot free a newer lease', async () => {
    const { slot, run } = readySlot();
    const first = await run(100);
    first.release();
    await run(100);
    first.release();
    await expect(slot.take(undefined, never)).rejects.toMatchObject(BUSY);
  });

  test('ids only rise, over grants and calls without', async () => {
    const { slot, router } = readySlot();
    const a = router();
    const ids: bigint[] = [];
    for (let round = 0; round < 5; round++) {
      if (round % 2 === 0) a.bid(aged(1));
      const lease = await slot.take(round % 2 === 0 ? a.last() : undefined, never);
      ids.push(lease.id);
      lease.release();
    }
    expect(ids).toEqual([100n, 101n, 102n, 103n, 104n]);
  });

  test('predictions of a lease that is over change nothing', async () => {
    const { clock, router, run } = readySlot();
    const old = await run(100);
    old.release();
    await run(1000);
    const a = router();
    a.bid(aged(1));
    old.expectEnd(clock.now());
    expect(a.grants).toEqual([]);
  });
});

describe('what routers are told', () => {
  test('a free slot, a running one, a promised one', async () => {
    const { clock, slot, router, run } = readySlot();
    expect(slot.snapshot).toEqual({ slotCount: 1, busyCount: 0, accepting: true, nextFreeMs: 0, maxPauseMs: 0 });
    const lease = await run(200);
    expect(slot.snapshot).toEqual({ slotCount: 1, busyCount: 1, accepting: true, nextFreeMs: 200, maxPauseMs: 0 });
    await clock.advance(150);
    expect(slot.snapshot.nextFreeMs).toBe(50);
    await clock.advance(100);
    expect(slot.snapshot.nextFreeMs).toBe(0); // overdue: any moment now
    lease.release();
    router().bid(aged(1));
    expect(slot.snapshot).toMatchObject({ busyCount: 1, accepting: true });
  });

  test('changes are told; a prediction that hardly moves is no news', async () => {
    const { clock, run, changeCount } = readySlot();
    const lease = await run(1000);
    const before = changeCount();
    lease.expectEnd(clock.now() + 1010);
    expect(changeCount()).toBe(before);
    lease.expectEnd(clock.now() + 3000);
    expect(changeCount()).toBe(before + 1);
    lease.release();
    expect(changeCount()).toBe(before + 2);
  });
});

test('any sequence of bids, calls and losses keeps one runner, rising ids, and no timer behind', async () => {
  const { clock, slot, router } = readySlot();
  const chance = seededRandom(12345);
  const random = (n: number) => Math.floor(chance() * n);
  const routers = [router(), router(), router()];
  let running: Lease | undefined;
  let runningCount = 0;
  const admitted = (lease: Lease) => {
    runningCount++;
    expect(runningCount).toBe(1);
    lease.expectEnd(clock.now() + random(100));
    running = lease;
  };
  const refused = () => {};
  for (let i = 0; i < 5000; i++) {
    const one = routers[random(routers.length)];
    switch (random(9)) {
      case 0:
      case 1:
        one?.bid(random(3) === 0 ? undefined : aged(random(1000)));
        break;
      case 2:
        one?.decline(one.last());
        break;
      case 3:
        slot.take(undefined, never).then(admitted, refused);
        break;
      case 4:
      case 5:
        slot.take(one?.last(), never).then(admitted, refused);
        break;
      case 6:
        if (running) {
          const lease: Lease = running;
          running = undefined;
          runningCount--;
          lease.release();
          lease.release();
        }
        break;
      case 7:
        await clock.advance(random(60));
        break;
      case 8:
        if (random(10) === 0) {
          slot.setReady(false);
          slot.setReady(true);
        }
    }
    await clock.advance(0);
    expect(slot.snapshot.busyCount >= runningCount).toBe(true);
  }
  for (const one of routers) {
    one.leave();
    const ids = one.grants.map(({ leaseId }) => leaseId);
    expect(ids).toEqual([...ids].sort((a, b) => (a < b ? -1 : 1)));
    expect(new Set(ids).size).toBe(ids.length);
  }
  if (running) (running as Lease).release();
  await clock.advance(10 * TTL_MS);
  expect(clock.pendingCount).toBe(0);
});
