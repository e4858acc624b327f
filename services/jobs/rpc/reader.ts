/**
 * The newest of a job or a batch, from NATS, so that whoever has an answer of one replica finds the same at every
 * other, however far that one's index is.
 */
import { badRequest } from '#core';
import type { Job } from '../domain/job.js';
import { isJobId, JOB_ID_RULE } from '../domain/record.js';
import type { JobIndex } from '../index/job-index.js';
import { notReady, unknownBatch, unknownJob } from '../refusals.js';
import type { JobRecords, StoredBatch, StoredJob } from '../store/job-records.js';

export class Reader {
  readonly #records: Pick<JobRecords, 'jobAsTold' | 'readBatch' | 'readJob'>;
  readonly #index: Pick<JobIndex, 'batch' | 'batchKnown'>;

  constructor(records: Pick<JobRecords, 'jobAsTold' | 'readBatch' | 'readJob'>, index: Pick<JobIndex, 'batch' | 'batchKnown'>) {
    this.#records = records;
    this.#index = index;
  }

  /** Throws NOT_FOUND; INVALID_ARGUMENT for what is no id. */
  async job(tenant: string, jobId: string): Promise<StoredJob> {
    requireId('job_id', jobId);
    const stored = await this.#records.readJob(tenant, jobId);
    if (!stored || (await this.isHeld(stored.job))) throw unknownJob(jobId);
    return stored;
  }

  /** As `job`; but who was told just now to have succeeded is not asked for again: that lasts, unless it was deleted since. */
  async jobForDownload(tenant: string, jobId: string): Promise<StoredJob> {
    const told = isJobId(jobId) ? this.#records.jobAsTold(tenant, jobId) : undefined;
    return told?.job.state.kind === 'succeeded' && !(await this.isHeld(told.job)) ? told : this.job(tenant, jobId);
  }

  /** As `job`, and UNAVAILABLE while this replica does not know of its jobs. */
  async batch(tenant: string, batchId: string): Promise<StoredBatch> {
    requireId('batch_id', batchId);
    const stored = await this.#records.readBatch(tenant, batchId);
    if (!stored) throw unknownBatch(batchId);
    if (!(await this.#index.batchKnown(tenant, batchId))) throw notReady(); // nothing is known of its jobs
    return stored;
  }

  /** Its batch is not there, or does not name it. */
  async isHeld({ batchId, jobId, tenant }: Job): Promise<boolean> {
    if (batchId === '') return false;
    const known = this.#index.batch(tenant, batchId)?.committed;
    if (known) return !known.jobIds.has(jobId);
    const stored = await this.#records.readBatch(tenant, batchId);
    return !stored?.batch.jobIds.includes(jobId);
  }
}

function requireId(field: string, id: string): void {
  if (!isJobId(id)) throw badRequest([{ field, description: `expected ${JOB_ID_RULE}, got ${JSON.stringify(id.slice(0, 140))}` }]);
}
