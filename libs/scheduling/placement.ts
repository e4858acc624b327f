/**
 * Which node should take this request? The one predicted to finish it first, a load of its model included.
 * A busy node may beat an idle one that is slow or must load: then the request waits for it instead of starting
 * at once. Only so many requests gain by that as those nodes can finish in the meantime; who stands behind them
 * in the queue is served sooner by the idle one.
 */

export interface Candidate {
  readonly nodeId: string;
  /** 0 when a slot is free, else the predicted time until one is. Milliseconds. */
  readonly freeInMs: number;
  /** Predicted time to load the model there first; 0 when it is loaded. Milliseconds. */
  readonly loadMs: number;
  /** Predicted run time of this request there. Milliseconds. */
  readonly runMs: number;
  /** Missed beats, or fresh from an ejection: used only when nothing better is. */
  readonly doubtful: boolean;
  readonly sameZone: boolean;
}

export type Placement =
  | { readonly kind: 'start'; readonly on: Candidate }
  /**
   * A busy node is predicted to finish it sooner than any idle one, and so for `soonerCount` requests like it.
   * `or` is the best idle one, if any, for those that come after.
   */
  | { readonly kind: 'wait'; readonly soonerCount: number; readonly or: Candidate | undefined };

/** Predicted finishes this close count as equal; then zone decides. Predictions are no better than this. */
const TIE_RATIO = 0.05;
/** An idle node is passed over only for one that is better by more than this: waiting on a prediction is a risk. */
const WORTH_WAITING_RATIO = 0.8;

/** Undefined when nobody may take it. */
export function place(candidates: readonly Candidate[]): Placement | undefined {
  const trusted = candidates.filter((candidate) => !candidate.doubtful);
  const pool = trusted.length > 0 ? trusted : candidates;
  if (pool.length === 0) return undefined;
  const idle = best(pool.filter((candidate) => candidate.freeInMs === 0));
  if (!idle) return { kind: 'wait', soonerCount: Number.POSITIVE_INFINITY, or: undefined };
  // A load is a prediction as well, and puts out what others may want: it gets no such bonus.
  const worthMs = (idle.loadMs > 0 ? 1 : WORTH_WAITING_RATIO) * finishMs(idle);
  let soonerCount = 0;
  for (const busy of pool) {
    if (busy.freeInMs > 0 && finishMs(busy) < worthMs) soonerCount += Math.floor((worthMs - busy.freeInMs - busy.loadMs) / busy.runMs);
  }
  return soonerCount > 0 ? { kind: 'wait', soonerCount, or: idle } : { kind: 'start', on: idle };
}

function finishMs(candidate: Candidate): number {
  return candidate.freeInMs + candidate.loadMs + candidate.runMs;
}

function best(candidates: readonly Candidate[]): Candidate | undefined {
  let chosen: Candidate | undefined;
  for (const candidate of candidates) {
    if (!chosen) chosen = candidate;
    else {
      const [mine, theirs] = [finishMs(candidate), finishMs(chosen)];
      const tie = Math.abs(mine - theirs) <= TIE_RATIO * Math.max(mine, theirs);
      if (tie ? candidate.sameZone && !chosen.sameZone : mine < theirs) chosen = candidate;
    }
  }
  return chosen;
}
