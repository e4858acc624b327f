/**
 * Looks through the store now and then for pictures that no record names, each replica for its share of the jobs.
 * They are left by attempts that died between picture and record, and by removals that were cut short.
 */
import type { Clock, Emit, Random } from '#core';
import type { ListedBlob } from '../blobs/blob-store.js';
import type { Blobs } from '../blobs/blobs.js';
import type { JobsEvent } from '../events.js';
import type { JobRecords } from '../store/job-records.js';

export interface SweeperOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly emit: Emit<JobsEvent>;
  readonly blobs: Pick<Blobs, 'sweep'>;
  readonly records: Pick<JobRecords, 'readJob'>;
  readonly everyMs: number;
  /** False while it is not known who lives, or what records there are: nothing is removed on a guess. */
  readonly maySweep: () => boolean;
  readonly isMine: (jobId: string) => boolean;
}

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
      if (maySweep()) emit({ type: 'storeSwept', ...(await blobs.sweep({ isNamed: (blob) => this.#isNamed(blob), isMine, signal })) });
    } catch (error) {
      if (!signal.aborted) emit({ type: 'sweepFailed', error });
    }
    if (!signal.aborted) this.#later(everyMs);
  }

  /** By the record as it is on disk, or by an attempt that runs and has still to record it. */
  async #isNamed({ name, parts: { attempt, jobId, tenant, uid } }: ListedBlob): Promise<boolean> {
    const job = (await this.#options.records.readJob(tenant, jobId))?.job;
    if (job?.uid !== uid) return false;
    if (job.state.kind === 'running') return job.attempt === attempt;
    return job.state.kind === 'succeeded' && job.state.result.images.some(({ blob }) => blob === name);
  }
}
