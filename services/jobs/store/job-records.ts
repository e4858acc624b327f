/**
 * Jobs and batches on disk: typed access to the one bucket in which each of them is a record, changed by
 * compare and set. Nothing here decides what may happen to a job; domain/job.ts does.
 */
import { type BucketSettings, type Bus, type KeptRecord, KeptRecords, type KeptState } from '#bus';
import { type Clock, Reason, StatusError } from '#core';
import { type Change, change, type Job } from '../domain/job.js';
import { type Batch, batchKey, formatBatch, formatJob, isJobKey, jobKey, parseRecord, type StoredRecord } from '../domain/record.js';
import { recordDamaged } from '../refusals.js';
import { RecentJobs } from './recent-jobs.js';

export interface StoredJob {
  readonly job: Job;
  readonly revision: number;
}

export interface StoredBatch {
  readonly batch: Batch;
  readonly revision: number;
}

/** `refused`: the job as it is, to which this cannot happen. */
export type Changed = ({ readonly kind: 'changed' | 'refused' } & StoredJob) | { readonly kind: 'missing' };

/** Told of every record, in the order of each record's changes. */
export interface RecordsListener {
  readonly onJob: (stored: StoredJob, sizeBytes: number) => void;
  readonly onBatch: (stored: StoredBatch, sizeBytes: number) => void;
  readonly onRemoved: (key: string) => void;
  /** `following`: all that is there has been told, and every change will be. */
  readonly onState: (state: KeptState) => void;
  /** Something in the bucket is no record of ours, or made a listener throw. A job that cannot be read any more is told as removed. */
  readonly onUnreadable: (key: string, cause: unknown) => void;
}

export interface JobRecordsOptions {
  readonly bus: Bus;
  readonly clock: Clock;
  readonly settings: BucketSettings;
  readonly listener: RecordsListener;
}

/**
 * Every method throws as KeptRecords does: UNAVAILABLE while NATS is away, or when it did not confirm. DATA_LOSS,
 * RECORD_DAMAGED: what is there cannot be read.
 */
export class JobRecords {
  readonly #records: KeptRecords;
  readonly #listener: RecordsListener;
  readonly #recent: RecentJobs;

  constructor({ bus, clock, settings, listener }: JobRecordsOptions) {
    this.#listener = listener;
    this.#recent = new RecentJobs(clock);
    this.#records = new KeptRecords({
      bus,
      clock,
      settings,
      onRecord: (record) => this.#guard(record.key, () => this.#tell(record)),
      onRemoved: (key) => this.#guard(key, () => this.#tellRemoved(key)),
      onState: (state) => this.#guard('', () => listener.onState(state)),
    });
  }

  get state(): KeptState {
    return this.#records.state;
  }

  start(): void {
    this.#records.start();
  }

  stop(): void {
    this.#records.stop();
  }

  /** Resolves with the revision; undefined when there is a record of this name already. */
  async createJob(job: Job): Promise<number | undefined> {
    return unlessChanged(this.#records.create(jobKey(job.tenant, job.jobId), Buffer.from(formatJob(job))));
  }

  async readJob(tenant: string, jobId: string): Promise<StoredJob | undefined> {
    const read = await this.#read(jobKey(tenant, jobId));
    return read?.kind === 'job' ? { job: read.job, revision: read.revision } : undefined;
  }

  /** As it was told within the last second, which may be behind `readJob`; undefined: it has to be read. */
  jobAsTold(tenant: string, jobId: string): StoredJob | undefined {
    return this.state.kind === 'following' ? this.#recent.get(jobKey(tenant, jobId)) : undefined;
  }

  /** Resolves with the new revision; undefined when `revision` is not the newest. */
  async replaceJob(job: Job, revision: number): Promise<number | undefined> {
    return unlessChanged(this.#records.replace(jobKey(job.tenant, job.jobId), Buffer.from(formatJob(job)), revision));
  }

  /** False when `revision` is not the newest. */
  async removeJob(tenant: string, jobId: string, revision: number): Promise<boolean> {
    return this.#remove(jobKey(tenant, jobId), revision);
  }

  /** One that cannot be read, whatever it is now. False when there is none, or it can be read. */
  async removeDamagedJob(tenant: string, jobId: string): Promise<boolean> {
    const key = jobKey(tenant, jobId);
    for (;;) {
      const record = await this.#records.read(key);
      if (!record || !isDamaged(record)) return false;
      if (await this.#remove(key, record.revision)) return true;
    }
  }

  /**
   * What `decide` wants to happen to the job as it is, and again to what it has become when somebody was
   * faster. `from` saves reading it; where it is refused that is final, also when the job has moved on since.
   */
  async changeJob(tenant: string, jobId: string, decide: (job: Job) => Change | undefined, from?: StoredJob): Promise<Changed> {
    for (let stored = from ?? (await this.readJob(tenant, jobId)); stored; stored = await this.readJob(tenant, jobId)) {
      const what = decide(stored.job);
      const job = what && change(stored.job, what);
      if (!job) return { kind: 'refused', ...stored };
      const revision = await this.replaceJob(job, stored.revision);
      if (revision !== undefined) return { kind: 'changed', job, revision };
    }
    return { kind: 'missing' };
  }

  /** Commits the jobs it names. Resolves with the revision; undefined when there is a batch of this name already. */
  async createBatch(batch: Batch): Promise<number | undefined> {
    return unlessChanged(this.#records.create(batchKey(batch.tenant, batch.batchId), Buffer.from(formatBatch(batch))));
  }

  async readBatch(tenant: string, batchId: string): Promise<StoredBatch | undefined> {
    const read = await this.#read(batchKey(tenant, batchId));
    return read?.kind === 'batch' ? { batch: read.batch, revision: read.revision } : undefined;
  }

  /** False when `revision` is not the newest. */
  async removeBatch(tenant: string, batchId: string, revision: number): Promise<boolean> {
    return this.#remove(batchKey(tenant, batchId), revision);
  }

  async #read(key: string): Promise<({ kind: 'job' } & StoredJob) | ({ kind: 'batch' } & StoredBatch) | undefined> {
    const record = await this.#records.read(key);
    return record && { ...parse(record), revision: record.revision };
  }

  async #remove(key: string, revision: number): Promise<boolean> {
    const removed = this.#records.remove(key, revision).then(() => revision);
    return (await unlessChanged(removed)) !== undefined;
  }

  #tell(record: KeptRecord): void {
    const { data, revision } = record;
    const stored = this.#parseOrForget(record);
    if (stored.kind === 'batch') return this.#listener.onBatch({ batch: stored.batch, revision }, data.length);
    const told = { job: stored.job, revision };
    this.#recent.told(record.key, told, data.length);
    this.#listener.onJob(told, data.length);
  }

  #tellRemoved(key: string): void {
    this.#recent.forget(key);
    this.#listener.onRemoved(key);
  }

  /** A job that cannot be read is not run, listed or counted. A batch stays as it was: its jobs are not lost with it. */
  #parseOrForget(record: KeptRecord): StoredRecord {
    try {
      return parse(record);
    } catch (thrown) {
      if (isJobKey(record.key)) this.#tellRemoved(record.key);
      throw thrown;
    }
  }

  /** What is thrown here would end the vendor's reader, and with it all news. */
  #guard(key: string, tell: () => void): void {
    try {
      tell();
    } catch (cause) {
      this.#listener.onUnreadable(key, cause);
    }
  }
}

function isDamaged(record: KeptRecord): boolean {
  try {
    parse(record);
    return false;
  } catch {
    return true;
  }
}

function parse(record: KeptRecord): StoredRecord {
  try {
    return parseRecord(record.key, textOf(record));
  } catch (cause) {
    throw recordDamaged(record.key, cause);
  }
}

function textOf({ data }: KeptRecord): string {
  return Buffer.from(data.buffer, data.byteOffset, data.length).toString('utf8');
}

async function unlessChanged(written: Promise<number>): Promise<number | undefined> {
  try {
    return await written;
  } catch (thrown) {
    if (thrown instanceof StatusError && thrown.reason === Reason.CHANGED_MEANWHILE) return undefined;
    throw thrown;
  }
}
