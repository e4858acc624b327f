/**
 * When did a node last prove that it lives? A server or a link that was stalled delivers what it held
 * back all at once. Such a burst says what a node was, not that it is: its author may have died since.
 *
 * Arrivals within 50 ms of the first are one arrival. And when a silence of two beats or more ends in
 * at least three arrivals within those 50 ms, they were held back, so none of them is proof; the next
 * beat outside the window is. A node that lives sends it within a second.
 *
 * The clock here stands still while the observer has no link, so that its own deafness is nobody's silence.
 */

export const BURST_WINDOW_MS = 50;
const BURST_COUNT = 3;

export interface Freshness {
  freshAt: number;
  /** What freshAt goes back to when the current window turns out to be a burst. */
  freshBefore: number;
  windowAt: number;
  countInWindow: number;
}

export function firstArrival(nowMs: number): Freshness {
  return { freshAt: nowMs, freshBefore: nowMs, windowAt: nowMs, countInWindow: 1 };
}

export function noteArrival(f: Freshness, nowMs: number, intervalMs: number): void {
  if (nowMs - f.windowAt >= BURST_WINDOW_MS) {
    f.freshBefore = f.freshAt;
    f.freshAt = nowMs;
    f.windowAt = nowMs;
    f.countInWindow = 1;
    return;
  }
  f.countInWindow += 1;
  const silentBeforeMs = f.windowAt - f.freshBefore;
  if (f.countInWindow === BURST_COUNT && silentBeforeMs > 2 * intervalMs) f.freshAt = f.freshBefore;
}
