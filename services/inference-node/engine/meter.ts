/** How fast does this request go, and when will it end? */
import type { Clock } from '#core';
import type { CostEstimate, Sample } from '../domain/cost-estimate.js';
import type { Drawable } from './engine-request.js';

/** Times the steps of one request and foresees its end. */
export class Meter {
  readonly total: number;
  done = 0;
  readonly #startedAt: number;
  #firstStepAt = 0;
  #lastStepAt: number;

  constructor(
    private readonly drawable: Drawable,
    private readonly by: { readonly clock: Pick<Clock, 'now'>; readonly estimate: CostEstimate; readonly startedAt: number },
  ) {
    this.total = drawable.steps * drawable.imageCount;
    this.#startedAt = by.startedAt;
    this.#lastStepAt = by.startedAt;
  }

  /** Counts a step and says how long it took. */
  step(): number {
    const nowMs = this.by.clock.now();
    const tookMs = nowMs - this.#lastStepAt;
    if (this.done === 0) this.#firstStepAt = nowMs;
    this.#lastStepAt = nowMs;
    this.done++;
    return tookMs;
  }

  expectedEndAt(): number {
    const { clock, estimate, startedAt } = this.by;
    const { imageCount } = this.drawable;
    if (this.done === 0) return startedAt + (estimate.predictMs(this.drawable) ?? 1000);
    // Each picture's decoding is still to come except for those whose steps lie behind.
    const tailMs = estimate.usualTailMs(this.drawable) * (imageCount - Math.floor((this.done - 1) / this.drawable.steps));
    return clock.now() + (this.total - this.done) * this.#meanStepMs() + tailMs;
  }

  sample(): Sample {
    const nowMs = this.by.clock.now();
    return { tookMs: nowMs - this.#startedAt, stepMs: this.#meanStepMs(), tailMs: nowMs - this.#lastStepAt };
  }

  /** The first step is left out where possible: it holds the text encoding as well. */
  #meanStepMs(): number {
    if (this.done > 1) return (this.#lastStepAt - this.#firstStepAt) / (this.done - 1);
    return this.by.estimate.usualStepMs(this.drawable) ?? this.#lastStepAt - this.#startedAt;
  }
}
