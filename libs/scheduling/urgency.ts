/**
 * How urgent is a request against one that another router holds? Compared from the first figure on,
 * smaller first; it is what routers bid with, and what the order inside one router comes down to.
 */
export interface Urgency {
  /** 0 for a class that is owed its share, then 1 for the most urgent class, and so on. */
  readonly rank: number;
  /** How far its tenant is ahead of its fair share by more than two requests, GPU milliseconds; negative: behind. */
  readonly leadMs: number;
  /** Its virtual deadline, clock milliseconds. */
  readonly dueAt: number;
}

/** Routers hear of each other's work a moment late: shares that differ less are equal. */
const LEAD_TIE_MS = 1;

export function isMoreUrgent(a: Urgency, b: Urgency): boolean {
  if (a.rank !== b.rank) return a.rank < b.rank;
  if (Math.abs(a.leadMs - b.leadMs) > LEAD_TIE_MS) return a.leadMs < b.leadMs;
  return a.dueAt < b.dueAt;
}
