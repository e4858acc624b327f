/** A node's slot with a clock that a test moves, and the routers and calls that want it. */
import { Code, Reason } from '#core';
import { type Bid, NO_PREEMPTION, type PreemptionPolicy } from '#scheduling';
import { type Bidder, type Grant, type Lapse, type Lease, Slot } from '../../services/inference-node/domain/slot.js';
import { ManualClock } from './manual-clock.js';

export const TTL_MS = 500;
export const WINDOW_MS = 30;
export const BUSY = { code: Code.RESOURCE_EXHAUSTED, reason: Reason.NODE_BUSY };
export const never = new AbortController().signal;

export const urgent = (figures: Partial<Bid>): Bid => ({
  rank: 2,
  leadMs: 0,
  dueAt: 1000,
  priority: 'normal',
  costMs: 200,
  ...figures,
});
/** The longer a request has waited, the sooner it is due. */
export const aged = (ms: number) => urgent({ dueAt: 1000 - ms });

/** Idle, of an engine that is ready. */
export function readySlot(preemption: PreemptionPolicy = NO_PREEMPTION) {
  const clock = new ManualClock();
  let changeCount = 0;
  const slot = new Slot({
    clock,
    grantTtlMs: TTL_MS,
    stagingWindowMs: WINDOW_MS,
    preemption,
    firstLeaseId: 100n,
    onChange: () => changeCount++,
  });
  slot.setReady(true);

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

  return { clock, slot, router, run, changeCount: () => changeCount };
}
