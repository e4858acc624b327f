/** Submit: answers when the job is on disk. The same id with the same request again is the same job. */
import type { generation, jobs } from '#contracts';
import type { UnaryHandler } from '#grpc';
import { differences, isWebhookOf } from '../differences.js';
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
    const webhookUrl = options?.webhookUrl ?? '';
    const caller = await callers.counted(call);
    if (!index.complete) throw notReady();
    // A repetition is the same job, whatever bounds and models say by now.
    const before = isJobId(jobId) ? index.job(caller.tenant, jobId) && (await records.readJob(caller.tenant, jobId)) : undefined;
    if (before && request) {
      const asked = { ...before.job, ...admission.asAsked(request, caller) };
      return { job: jobMessage(parts, sameJob(before, asked, { ...request, webhookUrl })), created: false };
    }
    const job = await admission.admit({ caller, options }, jobId, request);
    call.notes.job_id = job.jobId;
    call.notes.model = job.request.model;
    const { created, stored } = await bounds.within(caller.tenant, 1, () => create(parts, job, { model: '', ...request, webhookUrl }));
    return { job: jobMessage(parts, stored), created };
  };
}

async function create({ reader, records }: RpcParts, job: Job, asked: AskedFor): Promise<{ created: boolean; stored: StoredJob }> {
  for (;;) {
    const revision = await records.createJob(job);
    if (revision !== undefined) return { created: true, stored: { job, revision } };
    const before = await records.readJob(job.tenant, job.jobId);
    if (!before) continue; // removed just now
    if (await reader.isHeld(before.job)) throw jobDiffers('job', job.jobId, ['batch_id']); // being submitted with a batch
    return { created: false, stored: sameJob(before, job, asked) };
  }
}

/** As it came: what the caller left open is no difference. */
type AskedFor = Pick<generation.GenerateRequest, 'model' | 'seed'> & { readonly webhookUrl: string };

function sameJob(before: StoredJob, asked: Job, askedFor: AskedFor): StoredJob {
  const fields = differences(asked, askedFor, before.job);
  if (!isWebhookOf(before.job, askedFor.webhookUrl)) fields.push('options.webhook_url');
  if (fields.length > 0) throw jobDiffers('job', asked.jobId, fields);
  return before;
}
