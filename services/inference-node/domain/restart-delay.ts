/**
 * How long to wait before an engine is started again: the first tries are quick, because most
 * crashes are accidents of one request; then slower, for ever, because a node that gives up needs a
 * person and one that hammers a broken driver does harm.
 */
import type { Random } from '#core';

export interface RestartPolicy {
  /** Delay before the second quick try; the first has none, the third twice this. Milliseconds. */
  readonly quickDelayMs: number;
  /** First delay after the quick tries; doubles from there. Milliseconds. */
  readonly slowDelayMs: number;
  readonly maxDelayMs: number;
}

export const QUICK_TRIES = 3;

/** `failureCount`: lives in a row that ended badly, 1 or more. Slow delays vary by ±20 %. */
export function restartDelayMs(failureCount: number, policy: RestartPolicy, random: Random): number {
  if (failureCount <= QUICK_TRIES) return (failureCount - 1) * policy.quickDelayMs;
  const delayMs = Math.min(policy.maxDelayMs, policy.slowDelayMs * 2 ** (failureCount - QUICK_TRIES - 1));
  return Math.min(policy.maxDelayMs, delayMs * (0.8 + 0.4 * random()));
}
