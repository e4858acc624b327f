/**
 * Should it open? After `consecutiveFailureCount` failures in a row, or when the last `windowCount`
 * outcomes are known and at least `windowFailureRatio` of them failed. Counting outcomes instead of
 * seconds makes the rule the same for a node that draws one picture a minute and one that draws
 * twenty a second.
 */
import type { BreakerSettings } from './settings.js';

export type TripCause = 'consecutiveFailures' | 'failureRatio';

export class TripRule {
  readonly #settings: BreakerSettings;
  #consecutive = 0;
  #failed: boolean[] = [];

  constructor(settings: BreakerSettings) {
    this.#settings = settings;
  }

  success(): void {
    this.#consecutive = 0;
    this.#remember(false);
  }

  /** Why it should open now, if it should. */
  failure(): TripCause | undefined {
    this.#consecutive++;
    this.#remember(true);
    const { consecutiveFailureCount, windowCount, windowFailureRatio } = this.#settings;
    if (this.#consecutive >= consecutiveFailureCount) return 'consecutiveFailures';
    const failureCount = this.#failed.filter(Boolean).length;
    return this.#failed.length === windowCount && failureCount / windowCount >= windowFailureRatio ? 'failureRatio' : undefined;
  }

  clear(): void {
    this.#consecutive = 0;
    this.#failed = [];
  }

  #remember(failed: boolean): void {
    this.#failed.push(failed);
    if (this.#failed.length > this.#settings.windowCount) this.#failed.shift();
  }
}
