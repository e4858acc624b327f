/** Whose bid is granted the slot? */
import { describe, expect, test } from 'vitest';
import { aged, never, readySlot, urgent } from '../../../test/support/slot-world.js';

describe('the best bid', () => {
  test('is the more urgent one: by rank, then by fairness, then by what is due sooner', async () => {
    const { router, run } = readySlot();
    const [a, b] = [router(), router()];
    const winners: string[] = [];
    for (const [mine, theirs] of [
      [urgent({ rank: 3, leadMs: -50 }), urgent({ rank: 1, leadMs: 50 })],
      [urgent({ leadMs: 401, dueAt: 9 }), urgent({ dueAt: 10 })],
      [urgent({ leadMs: 400, dueAt: 9 }), urgent({ dueAt: 10 })],
      [urgent({ leadMs: 900, dueAt: 9 }), urgent({ dueAt: 10, costMs: 900 })],
    ] as const) {
      const lease = await run(1000);
      a.bid(mine);
      b.bid(theirs);
      lease.release();
      winners.push(a.grants.length > 0 ? 'a' : 'b');
      for (const each of [a, b]) {
        each.bid(undefined);
        each.decline(each.last());
        each.grants.length = 0;
      }
    }
    expect(winners).toEqual(['b', 'b', 'a', 'a']);
  });

  test('is replaced by a later bid of the same router', async () => {
    const { router, run } = readySlot();
    const lease = await run(1000);
    const [a, b] = [router(), router()];
    a.bid(aged(100));
    b.bid(aged(50));
    a.bid(aged(10));
    lease.release();
    expect([a.grants.length, b.grants.length]).toEqual([0, 1]);
  });

  test('is withdrawn when nothing is behind it any more, and by leaving', async () => {
    const { slot, router, run } = readySlot();
    const lease = await run(1000);
    const [a, b] = [router(), router()];
    a.bid(aged(100));
    b.bid(aged(50));
    a.bid(undefined);
    b.leave();
    lease.release();
    expect([a.grants.length, b.grants.length]).toEqual([0, 0]);
    await expect(slot.take(undefined, never)).resolves.toBeDefined();
  });

  test('of equals is the earlier one', async () => {
    const { router, run } = readySlot();
    const lease = await run(1000);
    const [a, b] = [router(), router()];
    a.bid(aged(100));
    b.bid(aged(100));
    lease.release();
    expect([a.grants.length, b.grants.length]).toEqual([1, 0]);
  });

  test('cannot be made after leaving', () => {
    const { router } = readySlot();
    const a = router();
    a.leave();
    a.bid(aged(10));
    expect(a.grants).toEqual([]);
  });
});
