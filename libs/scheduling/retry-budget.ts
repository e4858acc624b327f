/**
 * May this request be tried again? A retry count alone multiplies load when the mesh is already
 * failing; a budget bounds retries to a share of the traffic that is alive (Envoy's retry budget).
 */

export interface RetryBudgetOptions {
  /** Retries under way may be at most this share of requests under way. */
  readonly ratio: number;
  /** …but always this many, so that a quiet mesh can retry too. */
  readonly floorCount: number;
}

export class RetryBudget {
  #retrying = 0;

  constructor(private readonly options: RetryBudgetOptions) {}

  /** Retries under way. */
  get retryingCount(): number {
    return this.#retrying;
  }

  /** `liveCount`: requests the router holds now. The returned function gives the place back, once. */
  withdraw(liveCount: number): (() => void) | undefined {
    if (this.#retrying >= Math.max(this.options.floorCount, Math.floor(this.options.ratio * liveCount))) return undefined;
    this.#retrying++;
    let given = false;
    return () => {
      if (given) return;
      given = true;
      this.#retrying--;
    };
  }
}
