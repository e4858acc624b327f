/** The records and the index of the jobs service in memory, for tests of what runs jobs. */
import { generation } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import { type Change, change, type Job, type Result } from '../../services/jobs/domain/job.js';
import { jobKey } from '../../services/jobs/domain/record.js';
import { entryOf, type JobEntry } from '../../services/jobs/index/job-entry.js';
import type { Changed, StoredBatch, StoredJob } from '../../services/jobs/store/job-records.js';

export function sampleJob(fields: Partial<Job> = {}): Job {
  const jobId = fields.jobId ?? 'j1';
  return {
    uid: `uid-${jobId}`,
    tenant: 'acme',
    jobId,
    batchId: '',
    request: generation.GenerateRequest.fromPartial({ model: 'm', prompt: 'a red circle', seed: 7n }),
    priority: 'low',
    submittedAtMs: 1000,
    expiresAtMs: 86_400_000,
    round: 1,
    attempt: 0,
    failedAttempts: 0,
    state: { kind: 'queued', notBeforeMs: 0 },
    ...fields,
  };
}

export const sampleResult: Result = {
  images: [{ blob: 'acme/other', mimeType: 'image/png', width: 1, height: 1, seed: 7n, sizeBytes: 1, sha256: 'ff' }],
  used: generation.UsedParameters.fromPartial({ model: 'm', seed: 7n }),
  executingMs: 5,
};

export class MemoryJobs {
  readonly #stored = new Map<string, StoredJob>();
  #revision = 0;
  /** While set every call fails as it does without NATS. */
  away = false;
  /** The next write happens, but its confirmation is lost. */
  loseNextConfirmation = false;
  /** Ids of jobs whose batch is not there, as far as the index knows … */
  readonly held = new Set<string>();
  /** … and what the store says of any batch. */
  batchJobIds: readonly string[] | undefined;
  /** What a replica was told last where that is old, by key. */
  readonly told = new Map<string, StoredJob>();
  onChange: (entry: JobEntry) => void = () => {};
  onRemoved: (key: string) => void = () => {};

  add(job: Job): JobEntry {
    this.#put(job);
    return this.entryOf(job.jobId, job.tenant);
  }

  jobOf(jobId: string, tenant = 'acme'): Job {
    const stored = this.#stored.get(jobKey(tenant, jobId));
    if (!stored) throw new Error(`expected job ${jobId}, there is none`);
    return stored.job;
  }

  /** By somebody else. */
  force(jobId: string, what: Change): Job {
    const job = change(this.jobOf(jobId), what);
    if (!job) throw new Error(`expected ${what.kind} to be possible`);
    this.#put(job);
    return job;
  }

  entryOf(jobId: string, tenant = 'acme'): JobEntry {
    const entry = this.get(jobKey(tenant, jobId));
    if (!entry) throw new Error(`expected job ${jobId}, there is none`);
    return entry;
  }

  get(key: string): JobEntry | undefined {
    const stored = this.#stored.get(key);
    if (!stored) return undefined;
    return entryOf(key, stored.job, { revision: stored.revision, recordBytes: 0 }, (text) => text);
  }

  isHeld({ jobId }: JobEntry): boolean {
    return this.held.has(jobId);
  }

  *entries(): Generator<JobEntry, void> {
    for (const key of this.#stored.keys()) {
      const entry = this.get(key);
      if (entry) yield entry;
    }
  }

  async readBatch(tenant: string, batchId: string): Promise<StoredBatch | undefined> {
    this.#expectNats();
    const { batchJobIds: jobIds } = this;
    return jobIds && { batch: { tenant, batchId, submittedAtMs: 1, jobIds, digest: '' }, revision: 1 };
  }

  async readJob(tenant: string, jobId: string): Promise<StoredJob | undefined> {
    this.#expectNats();
    return this.#stored.get(jobKey(tenant, jobId));
  }

  jobAsTold(tenant: string, jobId: string): StoredJob | undefined {
    return this.told.get(jobKey(tenant, jobId));
  }

  async changeJob(tenant: string, jobId: string, decide: (job: Job) => Change | undefined, from?: StoredJob): Promise<Changed> {
    this.#expectNats();
    const wanted = from && decide(from.job);
    if (from && !(wanted && change(from.job, wanted))) return { kind: 'refused', ...from };
    const stored = this.#stored.get(jobKey(tenant, jobId));
    if (!stored) return { kind: 'missing' };
    const what = decide(stored.job);
    const job = what && change(stored.job, what);
    if (!job) return { kind: 'refused', ...stored };
    const made = this.#put(job);
    if (this.loseNextConfirmation) {
      this.loseNextConfirmation = false;
      throw away();
    }
    return { kind: 'changed', ...made };
  }

  async removeJob(tenant: string, jobId: string, revision: number): Promise<boolean> {
    this.#expectNats();
    const key = jobKey(tenant, jobId);
    if (this.#stored.get(key)?.revision !== revision) return false;
    this.#stored.delete(key);
    this.onRemoved(key);
    return true;
  }

  #put(job: Job): StoredJob {
    const stored = { job, revision: ++this.#revision };
    const key = jobKey(job.tenant, job.jobId);
    this.#stored.set(key, stored);
    const entry = this.get(key);
    if (entry) this.onChange(entry);
    return stored;
  }

  #expectNats(): void {
    if (this.away) throw away();
  }
}

function away(): StatusError {
  return new StatusError({ code: Code.UNAVAILABLE, reason: Reason.STORE_UNAVAILABLE, message: 'NATS is away' });
}
