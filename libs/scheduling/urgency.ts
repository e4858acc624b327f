/**
 * How urgent is a request against one that another router holds? Compared from the first figure on,
 * smaller first; it is what routers bid with, and what the order inside one router comes down to.
 */
export interface Urgency {
  /** 0 for a class that is owed its share, then 1 for the most urgent class, and so on. */
  readonly rank: number;
  /** How far its tenant is ahead of its fair share, GPU milliseconds; negative: behind. */
  readonly leadMs: number;
  /** Its virtual deadline, clock milliseconds. */
  readonly dueAt: number;
  /** Predicted GPU time, milliseconds. Infinity: not known. */
  readonly costMs: number;
}

/**
 * Each turn moves a tenant by one request, and routers hear of each other's work a moment late: a difference in
 * lead of less than so many requests, the larger of the two, says nothing and must not outweigh a deadline.
 */
const LEAD_TIE_COUNT = 2;

export function isMoreUrgent(a: Urgency, b: Urgency): boolean {
  if (a.rank !== b.rank) return a.rank < b.rank;
  const tieMs = LEAD_TIE_COUNT * Math.max(...[a.costMs, b.costMs].filter(Number.isFinite), 0);
  if (Math.abs(a.leadMs - b.leadMs) > tieMs) return a.leadMs < b.leadMs;
  return a.dueAt < b.dueAt;
}
