/**
 * Is there room for more jobs? How many of a tenant may wait, how much of it is kept, and what the stores take.
 * Asked before a job is accepted: what is accepted is never refused for want of room.
 *
 * Each replica counts what all of them have accepted, and what it is accepting itself; several that accept at the
 * same moment may go over by that.
 */
import type { JobIndex } from './index/job-index.js';
import { recordsFull, tooManyBytes, tooManyJobs } from './refusals.js';

export interface BoundsOptions {
  readonly index: Pick<JobIndex, 'activeCount' | 'counts' | 'recordBytes' | 'storedBytes' | 'tenantStoredBytes' | 'waitingCount'>;
  /** Of pictures (blobs/blobs.ts): rejects with STORE_FULL. */
  readonly refuseWhenFull: (promisedBytes: number) => Promise<void>;
  /** Of each tenant. */
  readonly maxWaitingCount: number;
  readonly maxStoredBytes: number;
  /** That JetStream was given for all records. */
  readonly maxRecordBytes: number;
}

/** The rest is for the jobs there are: every change of one may make its record longer. */
const FILLED_RATIO = 0.8;
/** A new record, with what it will have when it has ended. */
const RECORD_BYTES = 4096;
/** A picture of 1024² as PNG, until it is known what pictures here come to. */
const JOB_BYTES = 2 * 1024 ** 2;
const LEAST_COUNT = 100;

export class Bounds {
  readonly #options: BoundsOptions;
  /** Being accepted, by tenant. */
  readonly #accepting = new Map<string, number>();

  constructor(options: BoundsOptions) {
    this.#options = options;
  }

  /** Runs `accept` while there is room for so many more. Throws TOO_MANY_JOBS, TOO_MANY_BYTES or STORE_FULL. */
  async within<T>(tenant: string, jobCount: number, accept: () => Promise<T>): Promise<T> {
    this.#check(tenant, jobCount);
    this.#add(tenant, jobCount);
    try {
      await this.#options.refuseWhenFull(this.#promisedBytes());
      return await accept();
    } finally {
      this.#add(tenant, -jobCount);
    }
  }

  #check(tenant: string, jobCount: number): void {
    const { index, maxRecordBytes, maxStoredBytes, maxWaitingCount } = this.#options;
    const accepting = this.#accepting.get(tenant) ?? 0;
    const waiting = index.waitingCount(tenant) + accepting;
    if (waiting + jobCount > maxWaitingCount) throw tooManyJobs(tenant, { limit: maxWaitingCount, waiting });
    const stored = index.tenantStoredBytes(tenant);
    const promised = Math.ceil((index.activeCount(tenant) + accepting + jobCount) * this.#meanBytes());
    if (stored + promised > maxStoredBytes) throw tooManyBytes(tenant, { limit: maxStoredBytes, stored, promised });
    const newBytes = (jobCount + this.#acceptingCount()) * RECORD_BYTES;
    if (index.recordBytes + newBytes > FILLED_RATIO * maxRecordBytes) throw recordsFull(maxRecordBytes);
  }

  /** What all that is accepted and not drawn yet will take. */
  #promisedBytes(): number {
    const { counts } = this.#options.index;
    return (counts.queued + counts.running + this.#acceptingCount()) * this.#meanBytes();
  }

  /** Of one job, by what jobs came to so far. */
  #meanBytes(): number {
    const { counts, storedBytes } = this.#options.index;
    return counts.succeeded >= LEAST_COUNT ? storedBytes / counts.succeeded : JOB_BYTES;
  }

  #acceptingCount(): number {
    let count = 0;
    for (const ofTenant of this.#accepting.values()) count += ofTenant;
    return count;
  }

  #add(tenant: string, count: number): void {
    const sum = (this.#accepting.get(tenant) ?? 0) + count;
    if (sum === 0) this.#accepting.delete(tenant);
    else this.#accepting.set(tenant, sum);
  }
}
