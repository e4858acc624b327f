/** When is a running request paused for a more urgent one, and when does it go on? */
import { describe, expect, test } from 'vitest';
import type { Bid } from '#scheduling';
import { aged, BUSY, never, readySlot, TTL_MS, urgent, WINDOW_MS } from '../../../test/support/slot-world.js';

const high = (figures: Partial<Bid> = {}) => urgent({ rank: 1, priority: 'high', ...figures });

function pausableSlot() {
  const world = readySlot({ mode: 'short', maxPauseCount: 2, maxPauseMs: 30_000 });
  const said: string[] = [];
  /** A LOW request that runs for `ms` and can be paused; `answer` says how an attempt to pause it ends. */
  async function runLow(ms: number, answer: () => Promise<boolean> = async () => true, deadlineAt = Number.POSITIVE_INFINITY) {
    const lease = await world.run(ms);
    const pause = () => {
      said.push('pause');
      return answer();
    };
    lease.allowPause({ priority: 'low', deadlineAt, stepMs: 10, pause, resume: () => said.push('resume') });
    return lease;
  }
  return { ...world, said, runLow };
}

/** A LOW request of a second whose attempt to pause ends with `answer`. */
async function runUndecided(runLow: ReturnType<typeof pausableSlot>['runLow']) {
  let answer: (paused: boolean) => void = () => {};
  const answered = new Promise<boolean>((resolve) => {
    answer = resolve;
  });
  const low = await runLow(1000, () => answered);
  return { low, answer };
}

describe('a pause', () => {
  test('is granted to a HIGH bid at once, and begins when the call comes', async () => {
    const { slot, router, runLow, said } = pausableSlot();
    await runLow(1000);
    const a = router();
    a.bid(high());
    expect(a.grants).toEqual([{ leaseId: 101n, ttlMs: TTL_MS, preemption: { priority: 'high', maxCostMs: 10_000 } }]);
    expect(said).toEqual([]);
    const lease = await slot.take(a.last(), never);
    expect(lease.id).toBe(101n);
    expect(said).toEqual(['pause']);
    expect(slot.snapshot).toMatchObject({ busyCount: 1, maxPauseMs: 30_000 });
  });

  test('ends as soon as the newcomer does, before anything else is granted', async () => {
    const { clock, slot, router, run, runLow, said } = pausableSlot();
    const low = await runLow(1000);
    const a = router();
    a.bid(high());
    const newcomer = await run(200, a.last());
    a.bid(high());
    await clock.advance(190);
    expect(a.grants).toHaveLength(1);
    expect(slot.snapshot.nextFreeMs).toBe(1010);
    await expect(slot.take(undefined, never)).rejects.toMatchObject(BUSY);
    await clock.advance(10);
    newcomer.release();
    expect(said).toEqual(['pause', 'resume']);
    expect(slot.snapshot.nextFreeMs).toBeGreaterThanOrEqual(1000);
    low.expectEnd(clock.now() + 900);
    expect(a.grants).toHaveLength(2); // and may be paused again
    a.decline(a.last());
    low.release();
    expect(slot.snapshot.busyCount).toBe(0);
  });

  test('comes so often at most', async () => {
    const { clock, router, run, runLow, said } = pausableSlot();
    const low = await runLow(10_000);
    const a = router();
    for (let count = 0; count < 3; count++) {
      a.bid(high());
      if (count === 2) break;
      (await run(100, a.last())).release();
    }
    expect(a.grants).toHaveLength(2);
    expect(said).toEqual(['pause', 'resume', 'pause', 'resume']);
    low.expectEnd(clock.now());
    expect(a.grants[2]).toEqual({ leaseId: 103n, ttlMs: TTL_MS });
  });

  test('of one that goes on is asked for again at its next step, one answer at a time', async () => {
    const { clock, slot, router, runLow, said } = pausableSlot();
    const answers: ((paused: boolean) => void)[] = [];
    const low = await runLow(1000, () => new Promise((resolve) => answers.push(resolve)));
    const a = router();
    a.bid(high());
    const newcomer = slot.take(a.last(), never);
    low.expectEnd(clock.now() + 990);
    expect(said).toEqual(['pause']);
    answers[0]?.(false);
    await clock.advance(10);
    low.expectEnd(clock.now() + 980);
    expect(said).toEqual(['pause', 'pause']);
    answers[1]?.(true);
    await expect(newcomer).resolves.toMatchObject({ id: a.last() });
    low.expectEnd(clock.now() + 970);
    expect(said).toEqual(['pause', 'pause']);
  });

  test('of one that goes on means that the newcomer waits for its end', async () => {
    const { clock, slot, router, runLow } = pausableSlot();
    const low = await runLow(1000, async () => false);
    const a = router();
    a.bid(high());
    const taking = slot.take(a.last(), never);
    await clock.advance(300);
    low.release();
    await expect(taking).resolves.toMatchObject({ waitedMs: 300 });
  });

  test('is not begun for a call that is not ready', async () => {
    const { slot, router, runLow, said } = pausableSlot();
    const low = await runLow(1000);
    const a = router();
    a.bid(high());
    const taking = slot.take(a.last(), never, false);
    low.release();
    await expect(taking).resolves.toBeDefined();
    expect(said).toEqual([]);
  });

  test('that comes too late is none: the request has ended', async () => {
    const { slot, router, runLow, said } = pausableSlot();
    const { low, answer } = await runUndecided(runLow);
    const a = router();
    a.bid(high());
    const taking = slot.take(a.last(), never);
    low.release();
    answer(true);
    const newcomer = await taking;
    newcomer.release();
    expect(said).toEqual(['pause']);
    expect(slot.snapshot.busyCount).toBe(0);
  });

  test('ends at once when the newcomer left while it began', async () => {
    const { clock, slot, router, runLow, said } = pausableSlot();
    const { answer } = await runUndecided(runLow);
    const a = router();
    a.bid(high());
    const gone = new AbortController();
    const taking = slot.take(a.last(), gone.signal);
    gone.abort(new Error('gone'));
    await expect(taking).rejects.toThrow('gone');
    answer(true);
    await clock.advance(0);
    expect(said).toEqual(['pause', 'resume']);
  });

  test('that the newcomer has left leaves none of it to the next call, if that is not ready', async () => {
    const { clock, slot, router, runLow, said } = pausableSlot();
    const { low, answer } = await runUndecided(runLow);
    const a = router();
    a.bid(high());
    const gone = new AbortController();
    const taking = slot.take(a.last(), gone.signal);
    a.bid(high());
    gone.abort(new Error('gone'));
    await expect(taking).rejects.toThrow('gone');
    let isNext = false;
    const next = slot.take(a.last(), never, false).then(() => {
      isNext = true;
    });
    answer(true);
    await clock.advance(0);
    expect(isNext).toBe(false);
    expect(said).toEqual(['pause', 'resume']);
    low.release();
    await next;
  });

  test('of a request that is given up leaves the newcomer undisturbed', async () => {
    const { slot, router, run, runLow, said } = pausableSlot();
    const low = await runLow(1000);
    const [a, b] = [router(), router()];
    a.bid(high());
    const newcomer = await run(200, a.last());
    low.release();
    low.release();
    expect(slot.snapshot).toMatchObject({ busyCount: 1, nextFreeMs: 200 });
    b.bid(aged(10));
    newcomer.release();
    expect(said).toEqual(['pause']);
    expect(b.grants).toHaveLength(1);
  });

  test('lasts while the engine is in doubt', async () => {
    const { slot, router, run, runLow, said } = pausableSlot();
    const low = await runLow(1000);
    const a = router();
    a.bid(high());
    const newcomer = await run(200, a.last());
    slot.setReady(false);
    newcomer.release();
    expect(said).toEqual(['pause']);
    expect(slot.snapshot).toMatchObject({ busyCount: 1, accepting: false });
    slot.setReady(true);
    expect(said).toEqual(['pause', 'resume']);
    low.release();
    expect(slot.snapshot.busyCount).toBe(0);
  });

  test('is not begun while draining, and ends while draining', async () => {
    const { clock, slot, router, run, runLow, said } = pausableSlot();
    const low = await runLow(1000);
    const a = router();
    a.bid(high());
    const newcomer = await run(200, a.last());
    slot.setDraining(true);
    a.bid(high());
    newcomer.release();
    expect(said).toEqual(['pause', 'resume']);
    low.expectEnd(clock.now() + 900);
    expect(a.grants).toHaveLength(1);
    expect(slot.snapshot.busyCount).toBe(1);
  });

  test('that a router has no use for is not offered to it again at once', async () => {
    const { clock, router, runLow } = pausableSlot();
    const low = await runLow(1000);
    const a = router();
    a.bid(high());
    a.decline(a.last());
    a.bid(high());
    expect(a.grants).toHaveLength(1);
    await clock.advance(WINDOW_MS);
    low.expectEnd(clock.now() + 900); // the next step
    expect(a.grants).toHaveLength(2);
  });

  test('is not granted for a request that would be late by it, nor one that cannot be paused', async () => {
    const { router, run, runLow } = pausableSlot();
    const low = await runLow(1000, undefined, 1300);
    const a = router();
    a.bid(high());
    low.release();
    a.decline(a.last());
    await run(1000);
    a.bid(high());
    expect(a.grants.every(({ preemption }) => preemption === undefined)).toBe(true);
  });
});
