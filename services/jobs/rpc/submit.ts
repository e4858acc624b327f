/** Submit: answers when the job is on disk. The same id with the same request again is the same job. */
import type { jobs } from '#contracts';
import type { UnaryHandler } from '#grpc';
import { differences } from '../differences.js';
import type { Job } from '../domain/job.js';
import { isJobId } from '../domain/record.js';
import { jobDiffers, notReady } from '../refusals.js';
import type { StoredJob } from '../store/job-records.js';
import { jobMessage } from './message.js';
import type { RpcParts } from './parts.js';

export function submit(parts: RpcParts): UnaryHandler<jobs.SubmitRequest, jobs.SubmitResponse> {
  const { admission, bounds, callers, index, records } = parts;
  return async (call) => {
    const { jobId, options, request } = call.request;
    const caller = await callers.counted(call);
    if (!index.complete) throw notReady();
    // A repetition is the same job, whatever bounds and models say by now.
    const before = isJobId(jobId) ? index.job(caller.tenant, jobId) && (await records.readJob(caller.tenant, jobId)) : undefined;
    if (before && request) {
      const asked = { ...before.job, ...admission.asAsked(request, caller) };
      return { job: jobMessage(parts, sameJob(before, asked, request)), created: false };
    }
    const job = await admission.admit({ caller, options }, jobId, request);
    call.notes.job_id = job.jobId;
    call.notes.model = job.request.model;
    const { created, stored } = await bounds.within(caller.tenant, 1, () => create(parts, job, request));
    return { job: jobMessage(parts, stored), created };
  };
}

async function create(
  { reader, records }: RpcParts,
  job: Job,
  asked: jobs.SubmitRequest['request'],
): Promise<{ created: boolean; stored: StoredJob }> {
  for (;;) {
    const revision = await records.createJob(job);
    if (revision !== undefined) return { created: true, stored: { job, revision } };
    const before = await records.readJob(job.tenant, job.jobId);
    if (!before) continue; // removed just now
    if (await reader.isHeld(before.job)) throw jobDiffers('job', job.jobId, ['batch_id']); // being submitted with a batch
    return { created: false, stored: sameJob(before, job, asked) };
  }
}

function sameJob(before: StoredJob, asked: Job, askedFor: jobs.SubmitRequest['request']): StoredJob {
  const fields = differences(asked, { model: askedFor?.model ?? '', seed: askedFor?.seed }, before.job);
  if (fields.length > 0) throw jobDiffers('job', asked.jobId, fields);
  return before;
}
