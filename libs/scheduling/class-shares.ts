/**
 * Which class goes first? The more urgent one, except that each class has a guaranteed share of the
 * GPU time while it waits, so that no flood of urgent work starves the rest. A class that has not had
 * its share is owed: it goes first when what it is owed pays for its next request. What is guaranteed
 * to a class with nothing to do goes to the most urgent one (work-conserving).
 *
 * Credit counts only while a class waits and is not saved up, as in deficit round robin (Shreedhar
 * and Varghese, SIGCOMM 1995). So the next request of a class waits for cost ÷ share of GPU time at
 * most, plus a few requests of the others.
 */

/** From the most urgent on. */
export const PRIORITIES = ['high', 'normal', 'low'] as const;
export type Priority = (typeof PRIORITIES)[number];

/** Guaranteed parts of the GPU time; together at most 1. */
export type Shares = Readonly<Record<Priority, number>>;

export class ClassShares {
  readonly #creditMs: Record<Priority, number> = { high: 0, normal: 0, low: 0 };

  constructor(private readonly shares: Shares) {}

  /** What a class that waits has not been given of its share, GPU milliseconds. */
  creditMs(priority: Priority): number {
    return this.#creditMs[priority];
  }

  /** Whether what it is owed pays for a request of `costMs`. */
  owes(priority: Priority, costMs: number): boolean {
    // A share of nothing is owed nothing; rounding must not make it so.
    return this.shares[priority] > 0 && this.#creditMs[priority] >= costMs;
  }

  /** `costMs` of GPU time went to `served` while these classes waited. */
  serve(served: Priority, costMs: number, waiting: Iterable<Priority>): void {
    for (const priority of waiting) this.#creditMs[priority] += this.shares[priority] * costMs;
    this.#creditMs[served] = Math.max(0, this.#creditMs[served] - costMs);
  }

  /** It has nothing waiting any more. */
  clear(priority: Priority): void {
    this.#creditMs[priority] = 0;
  }
}
