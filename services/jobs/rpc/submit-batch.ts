/**
 * SubmitBatch: all of them or none. The jobs are written first, where nobody sees them; the batch's own record then
 * names them all, and that is the moment at which they are accepted.
 *
 * Who dies before that leaves jobs that are removed after a while. The same batch submitted again takes them over and
 * commits them: each is written anew, so that whoever meant to remove it is too late, and says what it said, since the
 * first submission may be slow rather than dead. Another batch of that name is refused until they are gone.
 */
import type { jobs } from '#contracts';
import { badRequest, Code, Reason, StatusError } from '#core';
import type { UnaryHandler } from '#grpc';
import { type Caller, MAX_BATCH_SIZE } from '../admission.js';
import { differences, digestOf, isWebhookOf } from '../differences.js';
import type { Job } from '../domain/job.js';
import { isJobId } from '../domain/record.js';
import { inParallel } from '../in-parallel.js';
import { idsTaken, jobDiffers, notReady } from '../refusals.js';
import type { StoredBatch } from '../store/job-records.js';
import { batchMessage } from './message.js';
import type { RpcParts } from './parts.js';

/** Writes at a time: NATS is busy, and others come in between. */
const WRITES = 64;
/** Well before jobs without a batch are removed (run/keeper.ts). */
const COMMIT_WITHIN_MS = 60_000;

type Accepted = Pick<StoredBatch['batch'], 'tenant' | 'batchId' | 'submittedAtMs' | 'jobIds'>;

export function submitBatch(parts: RpcParts): UnaryHandler<jobs.SubmitBatchRequest, jobs.SubmitBatchResponse> {
  const { admission, bounds, callers, index } = parts;
  const answer = (batch: Accepted, created: boolean) => ({ batch: batchMessage(parts, batch), jobIds: [...batch.jobIds], created });
  return async (call) => {
    const caller = await callers.counted(call);
    const { items, options } = call.request;
    if (!index.complete) throw notReady();
    if (items.length < 1 || items.length > MAX_BATCH_SIZE) {
      throw badRequest([{ field: 'items', description: `expected 1 to ${MAX_BATCH_SIZE}, got ${items.length}` }]);
    }
    const batchId = call.request.batchId || admission.madeUpId('b');
    call.notes.batch_id = batchId;
    const webhookUrl = options?.webhookUrl ?? '';
    const submission = { caller, batchId, items, digest: digestOf(items, webhookUrl), webhookUrl };
    const before = isJobId(batchId) && call.request.batchId !== '' ? await findSame(parts, submission) : undefined;
    if (before) return answer(before, false);
    const admitted = await admission.admitBatch({ caller, options }, batchId, items);
    return bounds.within(caller.tenant, admitted.length, async () => {
      const { batch, created } = await accept(parts, submission, admitted);
      return answer(batch, created);
    });
  };
}

interface BatchSubmission {
  readonly caller: Caller;
  readonly batchId: string;
  readonly items: readonly jobs.BatchItem[];
  readonly webhookUrl: string;
  readonly digest: string;
}

async function accept(
  parts: RpcParts,
  submission: BatchSubmission,
  admitted: readonly Job[],
): Promise<{ batch: Accepted; created: boolean }> {
  const { clock, records } = parts;
  const startedAt = clock.now();
  const written = await inParallel(admitted, WRITES, (job, at) => write(parts, job, submission.items[at]?.request));
  const taken = written.flatMap((one, at) => (one === undefined ? [`items[${at}].job_id`] : []));
  const { batchId, caller, digest } = submission;
  const batch = {
    tenant: caller.tenant,
    batchId,
    submittedAtMs: admitted[0]?.submittedAtMs ?? 0,
    jobIds: admitted.map(({ jobId }) => jobId),
    digest,
  };
  if (taken.length === 0) {
    if (clock.now() - startedAt > COMMIT_WITHIN_MS) throw tooSlow(batchId);
    if ((await records.createBatch(batch)) !== undefined) return { batch, created: true };
  }
  // Somebody has submitted the same at the same time, or another batch has jobs of these names.
  const before = await findSame(parts, submission);
  if (before) return { batch: before, created: false };
  await inParallel(admitted, WRITES, async ({ jobId, tenant }, at) => {
    const own = written[at];
    if (own?.created) await records.removeJob(tenant, jobId, own.revision); // unless somebody has taken it over
  });
  throw taken.length === 0 ? jobDiffers('batch', batchId, ['batch_id']) : idsTaken(batchId, taken);
}

interface Written {
  readonly revision: number;
  /** False: a submission that did not come to its end had left it. */
  readonly created: boolean;
}

/** Undefined when another job has this name. */
async function write({ reader, records }: RpcParts, job: Job, asked: jobs.BatchItem['request']): Promise<Written | undefined> {
  for (;;) {
    const created = await records.createJob(job);
    if (created !== undefined) return { revision: created, created: true };
    const before = await records.readJob(job.tenant, job.jobId);
    if (!before) continue; // removed just now
    const isLeft = before.job.batchId === job.batchId && (await reader.isHeld(before.job));
    if (!isLeft || !isSame(job, asked, before.job)) return undefined;
    // Kept as it is, seed and all: whoever wrote it may be committing it at this moment.
    const { expiresAtMs, submittedAtMs } = job;
    const revision = await records.replaceJob({ ...before.job, expiresAtMs, submittedAtMs }, before.revision);
    if (revision !== undefined) return { revision, created: false };
  }
}

function isSame(job: Job, asked: jobs.BatchItem['request'], before: Job): boolean {
  return (
    job.webhook?.url === before.webhook?.url && differences(job, { model: asked?.model ?? '', seed: asked?.seed }, before).length === 0
  );
}

/** The batch of this name, if there is one; throws JOB_DIFFERS when it is another. */
async function findSame(parts: RpcParts, submission: BatchSubmission): Promise<Accepted | undefined> {
  const { batchId, caller, digest, items, webhookUrl } = submission;
  const stored = await parts.records.readBatch(caller.tenant, batchId);
  if (!stored || stored.batch.digest === digest) return stored?.batch;
  const { jobIds } = stored.batch;
  if (jobIds.length !== items.length) throw jobDiffers('batch', batchId, ['items']);
  const fields = await inParallel(items, WRITES, async ({ jobId, request }, at) => {
    const id = jobIds[at] ?? '';
    if (jobId !== '' && jobId !== id) return [`items[${at}].job_id`];
    if (!request) throw badRequest([{ field: `items[${at}].request`, description: 'expected one, got none' }]);
    const accepted = await parts.records.readJob(caller.tenant, id);
    if (accepted?.job.batchId !== batchId) return [`items[${at}]`]; // forgotten: what it was cannot be told any more
    const asked = { ...accepted.job, ...parts.admission.asAsked(request, caller) };
    const ofRequest = differences(asked, request, accepted.job).map((field) => `items[${at}].${field}`);
    return isWebhookOf(accepted.job, webhookUrl) ? ofRequest : ['options.webhook_url', ...ofRequest];
  });
  const differing = [...new Set(fields.flat())];
  if (differing.length > 0) throw jobDiffers('batch', batchId, differing);
  return stored.batch;
}

function tooSlow(batchId: string): StatusError {
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.STORE_UNAVAILABLE,
    message: `the batch ${batchId} took too long to write, and was not accepted; try again`,
  });
}
