/**
 * Is this node slower than it should be? Not slower than others: a mesh may well hold GPUs of which one is three
 * times as fast as the next. What a request should take is the better of two measures, for each size:
 *
 *   usual     what this node takes when it is well: follows it down quickly, up by a hundredth
 *   typical   what nodes with the same device take: shows a node that was never well, also to a new router
 *
 * Pace is the median of the last five requests over that, so that neither one stall nor two make a node slow.
 * A node that stays slow for some hundred requests is taken for what it is. Decision 0014.
 */

const DOWN_RATIO = 0.2;
const UP_RATIO = 0.01;
/** One observation says at most so much about what is usual. */
const MAX_SURPRISE_RATIO = 3;
/** Each observation moves a typical time by this part towards itself: outliers pull no harder than others. */
const MEDIAN_STEP_RATIO = 0.05;
/** Times below this are alike: what a busy machine adds to a short picture says nothing about its GPU. */
const MIN_MS = 100;
const RECENT_COUNT = 5;
/** Fewer say nothing: the first request after a start is often a slow one. */
const MIN_COUNT = 3;

export class Pace {
  #recent: number[] = [];
  #now = 1;

  /** 1 is as it should be. */
  get now(): number {
    return this.#now;
  }

  /** Of one more request. */
  note(pace: number): void {
    this.#recent.push(pace);
    if (this.#recent.length > RECENT_COUNT) this.#recent.shift();
    if (this.#recent.length >= MIN_COUNT) this.#now = medianOf(this.#recent) ?? 1;
  }

  /** What was recent says nothing any more. */
  clear(): void {
    this.#recent = [];
    this.#now = 1;
  }
}

/** What a request took over what it should have taken. */
export function paceOf(tookMs: number, expectedMs: number): number {
  return Math.max(tookMs, MIN_MS) / Math.max(expectedMs, MIN_MS);
}

/** What is usual after one more observation. */
export function usualAfter(usual: number, seen: number): number {
  const surprise = Math.min(Math.max(seen / usual, 1 / MAX_SURPRISE_RATIO), MAX_SURPRISE_RATIO);
  return usual * (1 + (surprise < 1 ? DOWN_RATIO : UP_RATIO) * (surprise - 1));
}

/** What is typical after one more observation, of whatever node: a running median. */
export function typicalAfter(typical: number | undefined, seen: number): number {
  if (typical === undefined) return seen;
  const step = 1 + MEDIAN_STEP_RATIO;
  return seen > typical ? Math.min(seen, typical * step) : Math.max(seen, typical / step);
}

/** Of an even number the lower middle: of two nodes the faster one is the measure. Undefined of none. */
export function medianOf(values: readonly number[]): number | undefined {
  return [...values].sort((a, b) => a - b)[(values.length - 1) >> 1];
}
