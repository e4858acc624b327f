/**
 * The jobs whose records were told last, whole, so that what follows at once need not read them again: most jobs are
 * handed over right after they were submitted, and their pictures fetched right after they were drawn. Only for a
 * moment: who has just heard of a record also knows that NATS is there.
 */
import type { Clock } from '#core';
import type { StoredJob } from './job-records.js';

const MAX_AGE_MS = 1000;
/** As written down: some four thousand records of a kilobyte, far more than change within a second. */
const MAX_BYTES = 4 * 2 ** 20;

interface Told {
  readonly stored: StoredJob;
  readonly sizeBytes: number;
  readonly at: number;
}

export class RecentJobs {
  readonly #clock: Clock;
  /** By the key of its record, told longest ago first. */
  readonly #jobs = new Map<string, Told>();
  #sizeBytes = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Undefined: not told within the last second. */
  get(key: string): StoredJob | undefined {
    const told = this.#jobs.get(key);
    return told && this.#clock.now() - told.at <= MAX_AGE_MS ? told.stored : undefined;
  }

  told(key: string, stored: StoredJob, sizeBytes: number): void {
    this.forget(key);
    this.#jobs.set(key, { stored, sizeBytes, at: this.#clock.now() });
    this.#sizeBytes += sizeBytes;
    for (const [oldest, { at }] of this.#jobs) {
      if (this.#sizeBytes <= MAX_BYTES && this.#clock.now() - at <= MAX_AGE_MS) return;
      this.forget(oldest);
    }
  }

  forget(key: string): void {
    this.#sizeBytes -= this.#jobs.get(key)?.sizeBytes ?? 0;
    this.#jobs.delete(key);
  }
}
