/**
 * Looks now and then for what nothing names any more, each replica for its share: pictures without a record, left by
 * attempts that died between the two and by removals that were cut short; batches of which no job is left.
 */
import type { Clock, Emit, Random } from '#core';
import type { ListedBlob } from '../blobs/blob-store.js';
import type { Blobs } from '../blobs/blobs.js';
import type { Job } from '../domain/job.js';
import { batchKey, jobKey } from '../domain/record.js';
import type { JobsEvent } from '../events.js';
import type { JobIndex } from '../index/job-index.js';
import { isRecordDamaged } from '../refusals.js';
import type { JobRecords } from '../store/job-records.js';

export interface SweeperOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly emit: Emit<JobsEvent>;
  readonly blobs: Pick<Blobs, 'sweep'>;
  readonly records: Pick<JobRecords, 'readJob' | 'removeBatch'>;
  readonly index: Pick<JobIndex, 'batches'>;
  readonly wallNow: () => number;
  readonly everyMs: number;
  /** False while it is not known who lives, or what records there are: nothing is removed on a guess. */
  readonly maySweep: () => boolean;
  /** By the key of a batch's record; of pictures by the id of their job alone. */
  readonly isMine: (text: string) => boolean;
}

/** Longer than it takes to hear of a batch's jobs. */
const SETTLED_AFTER_MS = 10 * 60_000;

export class Sweeper {
  readonly #options: SweeperOptions;
  readonly #stopped = new AbortController();
  #cancelNext = () => {};

  constructor(options: SweeperOptions) {
    this.#options = options;
  }

  /** The first look comes at any time within one interval: replicas that started together do not look together. */
  start(): void {
    this.#later(this.#options.everyMs * this.#options.random());
  }

  stop(): void {
    this.#stopped.abort();
    this.#cancelNext();
  }

  #later(ms: number): void {
    this.#cancelNext = this.#options.clock.schedule(ms, () => void this.#sweep());
  }

  async #sweep(): Promise<void> {
    const { blobs, emit, everyMs, isMine, maySweep } = this.#options;
    const { signal } = this.#stopped;
    try {
      if (maySweep()) {
        await this.#sweepBatches();
        emit({ type: 'storeSwept', ...(await blobs.sweep({ isNamed: (blob) => this.#isNamed(blob), isMine, signal })) });
      }
    } catch (error) {
      if (!signal.aborted) emit({ type: 'sweepFailed', error });
    }
    if (!signal.aborted) this.#later(everyMs);
  }

  async #sweepBatches(): Promise<void> {
    const { index, isMine, records, wallNow } = this.#options;
    for (const { batchId, committed, jobs, tenant } of [...index.batches()]) {
      const isEmpty = committed !== undefined && jobs.size === 0 && wallNow() - committed.submittedAtMs > SETTLED_AFTER_MS;
      if (isEmpty && isMine(batchKey(tenant, batchId))) await records.removeBatch(tenant, batchId, committed.revision);
    }
  }

  /** By the record as it is on disk, or by an attempt that runs and has still to record it. */
  async #isNamed({ name, parts: { attempt, jobId, tenant, uid } }: ListedBlob): Promise<boolean> {
    let job: Job | undefined;
    try {
      job = (await this.#options.records.readJob(tenant, jobId))?.job;
    } catch (error) {
      if (!isRecordDamaged(error)) throw error; // NATS: a later sweep
      this.#options.emit({ type: 'recordUnreadable', key: jobKey(tenant, jobId), error });
      return true; // it may be this one's
    }
    if (job?.uid !== uid) return false;
    if (job.state.kind === 'running') return job.attempt === attempt;
    return job.state.kind === 'succeeded' && job.state.result.images.some(({ blob }) => blob === name);
  }
}
