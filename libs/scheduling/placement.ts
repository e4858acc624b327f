/**
 * Which node should take this request? The one predicted to finish it first. A busy but faster node
 * may beat an idle slow one: then the request waits for it instead of starting at once. Only so many
 * requests gain by that as the faster nodes can finish in the meantime; who stands behind them in the
 * queue is served sooner by the slow one.
 */

export interface Candidate {
  readonly nodeId: string;
  /** 0 when a slot is free, else the predicted time until one is. Milliseconds. */
  readonly freeInMs: number;
  /** Predicted run time of this request there. Milliseconds. */
  readonly runMs: number;
  /** Missed beats, or fresh from an ejection: used only when nothing better is. */
  readonly doubtful: boolean;
  readonly sameZone: boolean;
}

export type Placement =
  | { readonly kind: 'start'; readonly nodeId: string }
  /**
   * A busy node is predicted to finish it sooner than any idle one, and so for `soonerCount` requests like it.
   * `nodeId` is the best idle one, if any, for those that come after.
   */
  | { readonly kind: 'wait'; readonly soonerCount: number; readonly nodeId: string | undefined };

/** Predicted finishes this close count as equal; then zone decides. Predictions are no better than this. */
const TIE_RATIO = 0.05;
/** An idle node is passed over only for one that is better by more than this: waiting on a prediction is a risk. */
const WORTH_WAITING_RATIO = 0.8;

/** Undefined when nobody may take it. */
export function place(candidates: readonly Candidate[]): Placement | undefined {
  const trusted = candidates.filter((candidate) => !candidate.doubtful);
  const pool = trusted.length > 0 ? trusted : candidates;
  const idle = pool.filter((candidate) => candidate.freeInMs === 0);
  const bestIdle = best(idle);
  if (!bestIdle) return pool.length > 0 ? { kind: 'wait', soonerCount: Number.POSITIVE_INFINITY, nodeId: undefined } : undefined;
  const worthMs = WORTH_WAITING_RATIO * finishMs(bestIdle);
  let soonerCount = 0;
  for (const busy of pool) {
    if (busy.freeInMs > 0 && finishMs(busy) < worthMs) soonerCount += Math.floor((worthMs - busy.freeInMs) / busy.runMs);
  }
  return soonerCount > 0 ? { kind: 'wait', soonerCount, nodeId: bestIdle.nodeId } : { kind: 'start', nodeId: bestIdle.nodeId };
}

function finishMs(candidate: Candidate): number {
  return candidate.freeInMs + candidate.runMs;
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
