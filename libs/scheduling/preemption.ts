/**
 * Is a running request paused for one that waits? Its latents stay where they are and it goes on right
 * after the newcomer, so a pause costs it the newcomer's time and nobody any work. Two cases are worth it:
 *
 *   urgent   the newcomer is HIGH and the running request is not
 *   short    the newcomer takes at most two fifths of what the running request still needs: by waiting it
 *            would take more than three times its own time, where an answer stops being a good one
 *            (shortest remaining time first: Schrage 1968)
 *
 * Never a HIGH request, never for a lower class, never so that the running request would be late, and
 * never more often or longer than the policy allows. Pure; time comes in as an argument.
 */
import { PRIORITIES, type Priority } from './class-shares.js';
import type { Urgency } from './urgency.js';

/** `short` includes `high`. */
export type PreemptionMode = 'off' | 'high' | 'short';

export interface PreemptionPolicy {
  readonly mode: PreemptionMode;
  /** A request is paused so often at most … */
  readonly maxPauseCount: number;
  /** … and so long in all, as predicted when a pause begins; milliseconds. */
  readonly maxPauseMs: number;
}

/** Whoever runs is never paused. */
export const NO_PREEMPTION: PreemptionPolicy = { mode: 'off', maxPauseCount: 0, maxPauseMs: 0 };

/** What a router bids with: how urgent its best request is, and what that is. */
export interface Bid extends Urgency {
  /** Its own class, whatever it was promoted to. */
  readonly priority: Priority;
}

/** A running request that could be paused. */
export interface Pausable {
  readonly priority: Priority;
  /** When its caller stops waiting, clock milliseconds; Infinity: never. */
  readonly deadlineAt: number;
  readonly expectedEndAt: number;
  /** Usual time of one step, milliseconds: it is paused that much later at worst. */
  readonly stepMs: number;
  readonly pauseCount: number;
  readonly pausedMs: number;
}

/** Which requests a running one is paused for. */
export interface Preemption {
  /** The least urgent class. */
  readonly priority: Priority;
  readonly maxCostMs: number;
}

/** A pause takes effect at the next step: with fewer left than this, waiting is as good. */
const MIN_STEPS_LEFT = 2;
/** An urgent request that waits less than this part of its own time does not feel it. */
const UNFELT_WAIT_RATIO = 0.1;
/**
 * Cost over remaining time of a short one. In docs/benchmarks.md's mix, simulated, a third lets more small ones be
 * late (0.980 instead of 0.986 in time), and from a half on medium ones pause large ones, whose p99 grows by a tenth.
 */
const SHORT_RATIO = 0.4;
/** Predictions err: of the time a running request has to spare, a pause may take this part. */
const SPARE_RATIO = 0.5;

/** Undefined when `running` goes on. */
export function preemptionFor(bid: Bid, running: Pausable, policy: PreemptionPolicy, nowMs: number): Preemption | undefined {
  if (policy.mode === 'off' || running.priority === 'high' || running.pauseCount >= policy.maxPauseCount) return undefined;
  const remainingMs = running.expectedEndAt - nowMs;
  if (remainingMs < MIN_STEPS_LEFT * running.stepMs) return undefined;
  const roomMs = Math.min(policy.maxPauseMs - running.pausedMs, SPARE_RATIO * (running.deadlineAt - running.expectedEndAt));
  const urgent: Preemption = { priority: 'high', maxCostMs: Math.min(roomMs, remainingMs / UNFELT_WAIT_RATIO) };
  if (mayUse(bid, urgent)) return urgent;
  const short: Preemption = { priority: running.priority, maxCostMs: Math.min(roomMs, SHORT_RATIO * remainingMs) };
  return policy.mode === 'short' && mayUse(bid, short) ? short : undefined;
}

export function mayUse(request: Pick<Bid, 'priority' | 'costMs'>, { priority, maxCostMs }: Preemption): boolean {
  return PRIORITIES.indexOf(request.priority) <= PRIORITIES.indexOf(priority) && request.costMs <= maxCostMs;
}
