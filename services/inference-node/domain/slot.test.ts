import { beforeEach, describe, expect, test } from 'vitest';
import { Code, Reason } from '#core';
import { type Bid, NO_PREEMPTION, type PreemptionPolicy } from '#scheduling';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { type Bidder, type Grant, type Lapse, type Lease, Slot } from './slot.js';

const TTL_MS = 500;
const WINDOW_MS = 30;
const BUSY = { code: Code.RESOURCE_EXHAUSTED, reason: Reason.NODE_BUSY };
const NOT_READY = { code: Code.UNAVAILABLE, reason: Reason.ENGINE_NOT_READY };
const DRAINING = { code: Code.UNAVAILABLE, reason: Reason.DRAINING };

let clock: ManualClock;
let slot: Slot;
let changeCount: number;
const never = new AbortController().signal;

beforeEach(() => {
  clock = new ManualClock();
  changeCount = 0;
  slot = new Slot({
    clock,
    grantTtlMs: TTL_MS,
    stagingWindowMs: WINDOW_MS,
    preemption: NO_PREEMPTION,
    firstLeaseId: 100n,
    onChange: () => changeCount++,
  });
  slot.setReady(true);
});

const urgent = (figures: Partial<Bid>): Bid => ({ rank: 2, leadMs: 0, dueAt: 1000, priority: 'normal', costMs: 200, ...figures });
/** The longer a request has waited, the sooner it is due. */
const aged = (ms: number) => urgent({ dueAt: 1000 - ms });

/** A router that notes its grants, and those it did not use. */
function router(): Bidder & { grants: Grant[]; lapsed: Lapse[]; last: () => bigint } {
  const grants: Grant[] = [];
  const lapsed: Lapse[] = [];
  const bidder = slot.join({ onGrant: (grant) => grants.push(grant), onLapse: (lapse) => lapsed.push(lapse) });
  return { ...bidder, grants, lapsed, last: () => grants.at(-1)?.leaseId ?? -1n };
}

/** Runs a request that is predicted to end after `ms`. */
async function run(ms: number, leaseId?: bigint): Promise<Lease> {
  const lease = await slot.take(leaseId, never);
  lease.expectEnd(clock.now() + ms);
  return lease;
}

describe('an idle slot', () => {
  test('is taken by whoever calls, and who comes second is told to come back', async () => {
    const lease = await run(200);
    await expect(slot.take(undefined, never)).rejects.toMatchObject({ ...BUSY, details: { retryDelayMs: 200 } });
    lease.release();
    await expect(slot.take(undefined, never)).resolves.toBeDefined();
  });

  test('is granted to a bid at once', () => {
    const a = router();
    a.bid(aged(10));
    expect(a.grants).toEqual([{ leaseId: 100n, ttlMs: TTL_MS }]);
  });

  test('is granted once to a bid, however large its backlog', async () => {
    const a = router();
    a.bid(aged(10));
    (await run(100, a.last())).release();
    expect(a.grants).toHaveLength(1);
  });

  test('is not granted to a bid of no backlog', () => {
    const a = router();
    a.bid(undefined);
    expect(a.grants).toEqual([]);
  });

  test('that is promised refuses calls without the grant', async () => {
    const a = router();
    a.bid(aged(10));
    await expect(slot.take(undefined, never)).rejects.toMatchObject(BUSY);
    await expect(slot.take(99n, never)).rejects.toMatchObject(BUSY);
    await expect(slot.take(a.last(), never)).resolves.toMatchObject({ id: 100n, waitedMs: 0 });
  });

  test('is taken even with a grant that has lapsed, as by any caller', async () => {
    const a = router();
    a.bid(aged(10));
    await clock.advance(TTL_MS);
    await expect(slot.take(a.last(), never)).resolves.toMatchObject({ id: 101n });
  });
});

describe('a grant', () => {
  test('lapses after its time, not before, and goes to the next bid', async () => {
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
    const [a, b] = [router(), router()];
    a.bid(aged(10));
    await run(10_000, a.last());
    b.bid(aged(5));
    await clock.advance(2 * TTL_MS);
    expect(b.grants).toEqual([]);
  });

  test('that is declined goes to the next bid at once', () => {
    const [a, b] = [router(), router()];
    a.bid(aged(10));
    b.bid(aged(5));
    a.decline(a.last());
    expect(b.grants).toHaveLength(1);
    expect(b.last()).toBeGreaterThan(a.last());
  });

  test('is not given up by a decline of another router, or of another grant', () => {
    const [a, b] = [router(), router()];
    a.bid(aged(10));
    b.bid(aged(5));
    b.decline(a.last());
    a.decline(a.last() + 1n);
    expect(b.grants).toEqual([]);
  });

  test('is void when its router leaves', () => {
    const [a, b] = [router(), router()];
    a.bid(aged(10));
    b.bid(aged(5));
    a.leave();
    expect(b.grants).toHaveLength(1);
  });

  test('works once', async () => {
    const a = router();
    a.bid(aged(10));
    await run(100, a.last());
    await expect(slot.take(a.last(), never)).rejects.toMatchObject(BUSY);
  });
});

describe('a router that does not use its grants', () => {
  test('is passed over for longer each time, and heard again after a grant it used', async () => {
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
    const a = router();
    for (let round = 0; round < 5; round++) {
      a.bid(aged(10));
      a.decline(a.last());
    }
    expect(a.grants).toHaveLength(5);
    expect(a.lapsed).toEqual([]);
  });

  test('is reported', async () => {
    const a = router();
    a.bid(aged(10));
    await clock.advance(TTL_MS);
    expect(a.lapsed).toEqual([{ leaseId: a.last(), pauseMs: TTL_MS }]);
  });
});

describe('the best bid', () => {
  test('is the more urgent one: by rank, then by fairness, then by what is due sooner', async () => {
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
    const lease = await run(1000);
    const [a, b] = [router(), router()];
    a.bid(aged(100));
    b.bid(aged(50));
    a.bid(aged(10));
    lease.release();
    expect([a.grants.length, b.grants.length]).toEqual([0, 1]);
  });

  test('is withdrawn when nothing is behind it any more, and by leaving', async () => {
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
    const lease = await run(1000);
    const [a, b] = [router(), router()];
    a.bid(aged(100));
    b.bid(aged(100));
    lease.release();
    expect([a.grants.length, b.grants.length]).toEqual([1, 0]);
  });

  test('cannot be made after leaving', () => {
    const a = router();
    a.leave();
    a.bid(aged(10));
    expect(a.grants).toEqual([]);
  });
});

describe('staging', () => {
  test('grants ahead when the end is near, not before', async () => {
    await run(200);
    const a = router();
    a.bid(aged(10));
    await clock.advance(200 - WINDOW_MS - 1);
    expect(a.grants).toEqual([]);
    await clock.advance(1);
    expect(a.grants).toHaveLength(1);
  });

  test('follows the prediction, later and sooner', async () => {
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
    const lease = await run(WINDOW_MS);
    const a = router();
    a.bid(aged(10));
    lease.release();
    await expect(slot.take(undefined, never)).rejects.toMatchObject(BUSY);
    await expect(slot.take(a.last(), never)).resolves.toMatchObject({ id: a.last() });
  });

  test('lapses while the request still runs', async () => {
    await run(WINDOW_MS);
    const [a, b] = [router(), router()];
    a.bid(aged(10));
    b.bid(aged(5));
    await clock.advance(TTL_MS);
    expect(b.grants).toHaveLength(1);
  });

  test('forgets a waiting call that is cancelled; the next bid gets the slot', async () => {
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
    const lease = await run(WINDOW_MS);
    const a = router();
    a.bid(aged(10));
    const waiting = slot.take(a.last(), never);
    a.leave();
    lease.release();
    await expect(waiting).resolves.toMatchObject({ id: a.last() });
  });

  test('does not take a call that is over already', async () => {
    await run(WINDOW_MS);
    const a = router();
    a.bid(aged(10));
    await expect(slot.take(a.last(), AbortSignal.abort(new Error('gone')))).rejects.toThrow('gone');
  });
});

describe('a lease', () => {
  test('frees the slot once: a late release cannot free a newer lease', async () => {
    const first = await run(100);
    first.release();
    await run(100);
    first.release();
    await expect(slot.take(undefined, never)).rejects.toMatchObject(BUSY);
  });

  test('ids only rise, over grants and calls without', async () => {
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
    const old = await run(100);
    old.release();
    await run(1000);
    const a = router();
    a.bid(aged(1));
    old.expectEnd(clock.now());
    expect(a.grants).toEqual([]);
  });
});

describe('an engine that is not ready', () => {
  beforeEach(() => slot.setReady(false));

  test('takes no calls and gives no grants, until it is', async () => {
    const a = router();
    a.bid(aged(10));
    await expect(slot.take(undefined, never)).rejects.toMatchObject(NOT_READY);
    expect(a.grants).toEqual([]);
    slot.setReady(true);
    expect(a.grants).toHaveLength(1);
  });
});

test('losing the engine voids grants and sends the waiting call away, to be placed elsewhere', async () => {
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
    const a = router();
    a.bid(aged(10));
    slot.setDraining(true);
    await expect(slot.take(a.last(), never)).rejects.toMatchObject(DRAINING);
    expect(slot.snapshot).toMatchObject({ accepting: false, busyCount: 0 });
  });

  test('serves who runs and who waits', async () => {
    const lease = await run(WINDOW_MS);
    const a = router();
    a.bid(aged(10));
    const waiting = slot.take(a.last(), never);
    slot.setDraining(true);
    lease.release();
    await expect(waiting).resolves.toMatchObject({ id: a.last() });
  });

  test('sends the waiting call away when the engine is lost meanwhile', async () => {
    await run(WINDOW_MS);
    const a = router();
    a.bid(aged(10));
    const waiting = slot.take(a.last(), never);
    slot.setDraining(true);
    slot.setReady(false);
    await expect(waiting).rejects.toMatchObject(NOT_READY);
  });

  test('that is taken back grants again', () => {
    slot.setDraining(true);
    const a = router();
    a.bid(aged(10));
    expect(a.grants).toEqual([]);
    slot.setDraining(false);
    expect(a.grants).toHaveLength(1);
  });
});

describe('what routers are told', () => {
  test('a free slot, a running one, a promised one', async () => {
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
    const lease = await run(1000);
    const before = changeCount;
    lease.expectEnd(clock.now() + 1010);
    expect(changeCount).toBe(before);
    lease.expectEnd(clock.now() + 3000);
    expect(changeCount).toBe(before + 1);
    lease.release();
    expect(changeCount).toBe(before + 2);
  });
});

test('any sequence of bids, calls and losses keeps one runner, rising ids, and no timer behind', async () => {
  let state = 12345;
  const random = (n: number) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
  const routers = [router(), router(), router()];
  let running: Lease | undefined;
  let runningCount = 0;
  let lastGrant = 0n;
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
    for (const { grants } of routers) {
      const latest = grants.at(-1)?.leaseId ?? 0n;
      if (latest > lastGrant) lastGrant = latest;
    }
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

describe('a pause', () => {
  const SHORT: PreemptionPolicy = { mode: 'short', maxPauseCount: 2, maxPauseMs: 30_000 };
  const high = (figures: Partial<Bid> = {}) => urgent({ rank: 1, priority: 'high', ...figures });
  let said: string[];

  beforeEach(() => {
    said = [];
    slot = new Slot({
      clock,
      grantTtlMs: TTL_MS,
      stagingWindowMs: WINDOW_MS,
      preemption: SHORT,
      firstLeaseId: 100n,
      onChange: () => changeCount++,
    });
    slot.setReady(true);
  });

  /** A LOW request that runs for `ms` and can be paused; `answer` says how an attempt to pause it ends. */
  async function runLow(ms: number, answer: () => Promise<boolean> = async () => true, deadlineAt = Number.POSITIVE_INFINITY) {
    const lease = await run(ms);
    const pause = () => {
      said.push('pause');
      return answer();
    };
    lease.allowPause({ priority: 'low', deadlineAt, stepMs: 10, pause, resume: () => said.push('resume') });
    return lease;
  }

  test('is granted to a HIGH bid at once, and begins when the call comes', async () => {
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
    const low = await runLow(1000, async () => false);
    const a = router();
    a.bid(high());
    const taking = slot.take(a.last(), never);
    await clock.advance(300);
    low.release();
    await expect(taking).resolves.toMatchObject({ waitedMs: 300 });
  });

  test('is not begun for a call that is not ready', async () => {
    const low = await runLow(1000);
    const a = router();
    a.bid(high());
    const taking = slot.take(a.last(), never, false);
    low.release();
    await expect(taking).resolves.toBeDefined();
    expect(said).toEqual([]);
  });

  test('that comes too late is none: the request has ended', async () => {
    let answer: (paused: boolean) => void = () => {};
    const low = await runLow(
      1000,
      () =>
        new Promise((resolve) => {
          answer = resolve;
        }),
    );
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
    let answer: (paused: boolean) => void = () => {};
    await runLow(
      1000,
      () =>
        new Promise((resolve) => {
          answer = resolve;
        }),
    );
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
    let answer: (paused: boolean) => void = () => {};
    const low = await runLow(
      1000,
      () =>
        new Promise((resolve) => {
          answer = resolve;
        }),
    );
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
