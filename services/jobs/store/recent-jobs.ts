/**
 * The jobs whose records were seen last, whole, so that what follows at once need not read them again: most jobs are
 * handed over right after they were submitted, and their pictures fetched right after they were drawn.
 */
import type { StoredJob } from './job-records.js';

/** As written down; in memory about three times that. Some four thousand jobs with usual prompts. */
const MAX_BYTES = 4 * 2 ** 20;

export class RecentJobs {
  /** By the key of its record, seen longest ago first. */
  readonly #jobs = new Map<string, { readonly stored: StoredJob; readonly sizeBytes: number }>();
  #sizeBytes = 0;

  get(key: string): StoredJob | undefined {
    return this.#jobs.get(key)?.stored;
  }

  saw(key: string, stored: StoredJob, sizeBytes: number): void {
    this.forget(key);
    this.#jobs.set(key, { stored, sizeBytes });
    this.#sizeBytes += sizeBytes;
    for (const oldest of this.#jobs.keys()) {
      if (this.#sizeBytes <= MAX_BYTES) return;
      this.forget(oldest);
    }
  }

  forget(key: string): void {
    this.#sizeBytes -= this.#jobs.get(key)?.sizeBytes ?? 0;
    this.#jobs.delete(key);
  }
}
