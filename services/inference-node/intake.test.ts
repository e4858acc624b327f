import { expect, test } from 'vitest';
import { Reason } from '#core';
import { type Bid, NO_PREEMPTION } from '#scheduling';
import { ManualClock } from '../../test/support/manual-clock.js';
import { type Grant, Slot } from './domain/slot.js';
import type { Executor } from './engine/executor.js';
import type { Supervisor } from './engine/supervisor.js';
import { Intake } from './intake.js';

const BID: Bid = { rank: 2, leadMs: 0, dueAt: 1000, priority: 'normal', costMs: 200 };
const never = new AbortController().signal;

/** A node whose router always has more work, and an engine that is fresh at once. */
function busyNode() {
  const log: string[] = [];
  const slot: Slot = new Slot({
    clock: new ManualClock(),
    grantTtlMs: 500,
    stagingWindowMs: 30,
    preemption: NO_PREEMPTION,
    firstLeaseId: 1n,
    onChange: () => intake?.settle(),
  });
  const supervisor = { reload: () => log.push(`reload, busy ${slot.snapshot.busyCount}`) } as unknown as Supervisor;
  let intake: Intake | undefined;
  intake = new Intake({ slot, supervisor, executor: {} as Executor, emit: () => {} });
  slot.setReady(true);
  const grants: Grant[] = [];
  const bidder = slot.join({
    onGrant: (grant) => {
      grants.push(grant);
      bidder.bid(BID);
    },
    onLapse: () => {},
  });
  return { slot, intake, log, grants, start: () => bidder.bid(BID) };
}

test('a reload of a node that is never idle comes between two requests: who was granted still draws, then nobody until it is done', async () => {
  const { slot, intake, log, grants, start } = busyNode();
  start();
  const running = await slot.take(grants[0]?.leaseId, never);
  running.expectEnd(0); // about to end: the next is granted ahead, and comes
  const staged = slot.take(grants[1]?.leaseId, never);
  intake.reload();
  running.release();
  const last = await staged;
  last.expectEnd(0);
  expect(log).toEqual([]);
  expect(grants).toHaveLength(2);
  await expect(slot.take(undefined, never)).rejects.toMatchObject({ reason: Reason.DRAINING });
  last.release();
  expect(log).toEqual(['reload, busy 0']);
  expect(grants).toHaveLength(3); // work is let in again
});

test('a reload in the middle of a drain leaves the node drained, and a drain that ends meanwhile lets nothing in before it', async () => {
  const { slot, intake, log, start } = busyNode();
  start();
  const [one] = [await slot.take(1n, never)];
  void intake.drain('test');
  intake.reload();
  intake.resume('test');
  expect(slot.snapshot.accepting).toBe(false);
  void intake.drain('test');
  one.release();
  expect(log).toEqual(['reload, busy 0']);
  expect(slot.snapshot.accepting).toBe(false);
  intake.resume('test');
  expect(slot.snapshot.accepting).toBe(true);
});
