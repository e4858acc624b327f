/** A jobs service in memory, whose jobs succeed one by one as they are looked at. */
import { createHash } from 'node:crypto';
import { jobs } from '#contracts';
import { badRequest, Code, Reason, StatusError } from '#core';
import type { HandlersOf } from '#grpc';

type Handlers = HandlersOf<typeof jobs.JobsServiceService>;
const { JobState } = jobs;

export const pictureOf = (prompt: string) => Buffer.from(`a picture of ${prompt}`);
const digestOf = (data: Buffer) => createHash('sha256').update(data).digest('hex');
const unknown = () => new StatusError({ code: Code.NOT_FOUND, reason: 'UNKNOWN_JOB', message: 'expected a job of yours' });

const differs = (fields: string) =>
  new StatusError({ code: Code.ALREADY_EXISTS, reason: Reason.JOB_DIFFERS, message: `another ${fields}`, metadata: { fields } });

/** A prompt with "bad" fails. */
export class FakeJobs {
  readonly batches = new Map<string, jobs.Job[]>();
  /** By batch, as it was submitted. */
  readonly jobIds = new Map<string, string>();
  /** Before a batch is written. */
  beforeSubmit = () => {};
  submitCount = 0;
  /** So many looks find NATS away. */
  awayCount = 0;
  downloadCount = 0;
  room = Number.POSITIVE_INFINITY;
  /** A download waits for this. */
  download = async (_jobId: string) => {};

  get all(): jobs.Job[] {
    return [...this.batches.values()].flat();
  }

  has(jobId: string): boolean {
    return this.all.some((each) => each.jobId === jobId);
  }

  find(jobId: string): jobs.Job {
    const job = this.all.find((each) => each.jobId === jobId);
    if (!job) throw unknown();
    return job;
  }

  /** As it was accepted. */
  of(prompt: string): jobs.Job {
    const job = this.all.find(({ request }) => request?.prompt === prompt);
    if (!job) throw unknown();
    return job;
  }

  forgetAll(): void {
    this.batches.clear();
    this.jobIds.clear();
  }

  /** The next one that waits. */
  finishOne(batchId: string): void {
    const job = this.batches.get(batchId)?.find(({ state }) => state === JobState.QUEUED);
    if (!job) return;
    this.room++;
    const { prompt = '', seed = 0n } = job.request ?? {};
    if (prompt.includes('bad')) {
      job.state = JobState.FAILED;
      job.failure = { code: 3, reason: 'POISON', message: 'it broke two nodes' };
      return;
    }
    const data = pictureOf(prompt);
    const image = { mimeType: 'image/png', width: 8, height: 8, seed, sizeBytes: BigInt(data.length), sha256: digestOf(data) };
    job.state = JobState.SUCCEEDED;
    job.result = jobs.JobResult.fromPartial({ images: [image], executingMs: 40 });
  }

  countsOf(batchId: string): jobs.Batch {
    const list = this.batches.get(batchId) ?? [];
    const count = (state: jobs.JobState) => list.filter((job) => job.state === state).length;
    return jobs.Batch.fromPartial({
      batchId,
      jobCount: list.length,
      queuedCount: count(JobState.QUEUED),
      succeededCount: count(JobState.SUCCEEDED),
      failedCount: count(JobState.FAILED),
      cancelledCount: count(JobState.CANCELLED),
    });
  }

  readonly handlers: Partial<Handlers> = {
    submitBatch: async ({ request: { batchId, items } }) => {
      this.submitCount++;
      const created = !this.batches.has(batchId);
      if (created && items.length > this.room) {
        throw new StatusError({ code: Code.RESOURCE_EXHAUSTED, reason: 'TOO_MANY_JOBS', message: 'too many jobs wait' });
      }
      const jobIds = items.map(({ jobId }) => jobId).join();
      if (!created && jobIds !== this.jobIds.get(batchId)) throw differs('items');
      this.beforeSubmit();
      const taken = items.flatMap(({ jobId }, index) => (created && this.has(jobId) ? [`items[${index}].job_id`] : []));
      if (taken.length > 0) throw differs(taken.join(','));
      const tooLong = items.flatMap(({ request }, index) =>
        (request?.prompt ?? '').includes('too long')
          ? [{ field: `items[${index}].request.prompt`, description: 'expected 1 to 9 bytes' }]
          : [],
      );
      if (tooLong.length > 0) throw badRequest(tooLong);
      this.jobIds.set(batchId, jobIds);
      const made = items.map(({ jobId, request }) =>
        jobs.Job.fromPartial({ jobId, batchId, state: JobState.QUEUED, position: 1, ...(request ? { request } : {}) }),
      );
      if (created) {
        this.batches.set(batchId, made);
        this.room -= made.length;
      }
      return { batch: this.countsOf(batchId), jobIds: items.map(({ jobId }) => jobId), created };
    },
    getBatch: async ({ request: { batchId } }) => {
      if (this.awayCount-- > 0) {
        throw new StatusError({ code: Code.FAILED_PRECONDITION, reason: Reason.STORE_UNAVAILABLE, message: 'NATS is away' });
      }
      if (!this.batches.has(batchId)) throw unknown();
      this.finishOne(batchId);
      return { batch: this.countsOf(batchId) };
    },
    list: async ({ request: { batchId, states } }) => {
      const wanted = this.all.filter(
        (job) => (batchId === '' || job.batchId === batchId) && (states.length === 0 || states.includes(job.state)),
      );
      return { jobs: wanted, nextPageToken: '' };
    },
    get: async ({ request: { jobId } }) => ({ job: this.find(jobId) }),
    watch: async ({ request: { jobId } }, out) => {
      const job = this.find(jobId);
      await out.write({ job });
      this.finishOne(job.batchId);
      await out.write({ job });
    },
    cancel: async ({ request: { which } }) => {
      if (which?.$case !== 'batchId') {
        const job = this.find(which?.value ?? '');
        job.state = JobState.CANCELLED;
        return { job, cancelledCount: 1 };
      }
      const waiting = this.batches.get(which.value)?.filter(({ state }) => state === JobState.QUEUED) ?? [];
      for (const job of waiting) job.state = JobState.CANCELLED;
      return { job: undefined, cancelledCount: waiting.length };
    },
    retry: async ({ request: { jobId } }) => {
      const job = this.find(jobId);
      if (job.state === JobState.SUCCEEDED) {
        throw new StatusError({ code: Code.FAILED_PRECONDITION, reason: 'JOB_ENDED', message: 'it has succeeded' });
      }
      job.state = JobState.QUEUED;
      job.failure = undefined;
      return { job };
    },
    delete: async ({ request: { jobId } }) => {
      const { batchId } = this.find(jobId);
      this.batches.set(batchId, this.batches.get(batchId)?.filter((job) => job.jobId !== jobId) ?? []);
      return {};
    },
    download: async ({ request: { jobId } }, out) => {
      this.downloadCount++;
      await this.download(jobId);
      const data = pictureOf(this.find(jobId).request?.prompt ?? '');
      await out.write({ data, offset: 0n, totalBytes: BigInt(data.length), mimeType: 'image/png', sha256: digestOf(data) });
    },
  };
}
