/** A job as the contract has it. */
import { generation, jobs, PRIORITY_MESSAGES } from '#contracts';
import type { Failure, Job, Result, StateKind, Webhook } from '../domain/job.js';
import { jobKey } from '../domain/record.js';
import type { JobEntry } from '../index/job-entry.js';
import type { Wait } from '../run/waits.js';
import type { StoredJob } from '../store/job-records.js';
import type { RpcParts } from './parts.js';

const STATES: Readonly<Record<StateKind, jobs.JobState>> = {
  queued: jobs.JobState.QUEUED,
  running: jobs.JobState.RUNNING,
  succeeded: jobs.JobState.SUCCEEDED,
  failed: jobs.JobState.FAILED,
  cancelled: jobs.JobState.CANCELLED,
  expired: jobs.JobState.EXPIRED,
};

const WEBHOOK_STATES: Readonly<Record<Webhook['state'], jobs.WebhookState>> = {
  waiting: jobs.WebhookState.PENDING,
  pending: jobs.WebhookState.PENDING,
  delivered: jobs.WebhookState.DELIVERED,
  givenUp: jobs.WebhookState.GIVEN_UP,
};

/** Undefined for unspecified and for what a newer contract may add. */
export function stateKind(state: jobs.JobState): StateKind | undefined {
  return (Object.keys(STATES) as StateKind[]).find((kind) => STATES[kind] === state);
}

/** With what is known of this moment: position, time left, step, why it waits. */
export function jobMessage(parts: Pick<RpcParts, 'index' | 'steps' | 'waits' | 'wallNow'>, { job, revision }: StoredJob): jobs.Job {
  const { state } = job;
  const key = jobKey(job.tenant, job.jobId);
  const entry = parts.index.get(key);
  const known = entry?.kind === state.kind ? entry : undefined; // the index may be a moment behind
  const step = state.kind === 'running' ? parts.steps.stepOf(key) : undefined;
  const isNow = step?.attempt === job.attempt ? step : undefined;
  const wait = waitOf(parts, job, known);
  return {
    jobId: job.jobId,
    tenant: job.tenant,
    batchId: job.batchId,
    state: STATES[state.kind],
    revision: BigInt(revision),
    request: { ...job.request, requestId: job.jobId, priority: PRIORITY_MESSAGES[job.priority] },
    submittedAtMs: BigInt(job.submittedAtMs),
    startedAtMs: BigInt('startedAtMs' in state ? state.startedAtMs : 0),
    endedAtMs: BigInt('endedAtMs' in state ? state.endedAtMs : 0),
    expiresAtMs: BigInt(job.expiresAtMs),
    attempt: job.attempt,
    failedAttempts: job.failedAttempts,
    position: known?.kind === 'queued' ? parts.index.position(known) : 0,
    etaMs: known ? parts.index.etaMs(known, parts.wallNow()) : 0,
    nextAttemptAtMs: BigInt(Math.ceil(wait?.nextAttemptAtMs ?? 0)),
    waitingFor: failureMessage(wait?.failure),
    nodeId: 'nodeId' in state ? state.nodeId : '',
    step: isNow?.step ?? 0,
    totalSteps: isNow?.totalSteps ?? 0,
    failure: failureMessage(state.kind === 'failed' ? state.failure : job.lastFailure),
    result: state.kind === 'succeeded' ? resultMessage(state.result) : undefined,
    priority: PRIORITY_MESSAGES[job.priority],
    webhook: job.webhook && webhookMessage(job.webhook),
  };
}

/** Undefined: for its turn alone, or not at all. A retry that is not due yet waits for nothing else. */
function waitOf(
  { waits, wallNow }: Pick<RpcParts, 'waits' | 'wallNow'>,
  { lastFailure: failure, state }: Job,
  known: JobEntry | undefined,
): Wait | undefined {
  if (state.kind !== 'queued') return undefined;
  if (failure && state.notBeforeMs > wallNow()) return { failure, nextAttemptAtMs: state.notBeforeMs };
  return known && waits.of(known);
}

function failureMessage(failure: Failure | undefined): jobs.JobFailure | undefined {
  return failure && { ...failure };
}

function resultMessage({ executingMs, images, used }: Result): jobs.JobResult {
  return {
    images: images.map(({ blob: _, sizeBytes, ...image }) => ({ ...image, sizeBytes: BigInt(sizeBytes), url: '' })),
    used: generation.UsedParameters.fromPartial(used),
    executingMs,
  };
}

function webhookMessage(webhook: Webhook): jobs.WebhookDelivery {
  const { attempts, eventId, lastError, nextAttemptAtMs, state, url } = webhook;
  return { url, state: WEBHOOK_STATES[state], eventId, attempts, nextAttemptAtMs: BigInt(Math.ceil(nextAttemptAtMs)), lastError };
}

/** How far a batch is, by what this replica knows. */
export function batchMessage(
  { index, wallNow }: Pick<RpcParts, 'index' | 'wallNow'>,
  { batchId, submittedAtMs, tenant }: { readonly tenant: string; readonly batchId: string; readonly submittedAtMs: number },
): jobs.Batch {
  const counts: Record<StateKind, number> = { queued: 0, running: 0, succeeded: 0, failed: 0, cancelled: 0, expired: 0 };
  let etaMs = 0;
  for (const entry of index.batch(tenant, batchId)?.jobs ?? []) {
    if (index.isHeld(entry)) continue;
    counts[entry.kind]++;
    etaMs = Math.max(etaMs, index.etaMs(entry, wallNow()));
  }
  return {
    batchId,
    submittedAtMs: BigInt(submittedAtMs),
    jobCount: Object.values(counts).reduce((sum, count) => sum + count, 0),
    queuedCount: counts.queued,
    runningCount: counts.running,
    succeededCount: counts.succeeded,
    failedCount: counts.failed,
    cancelledCount: counts.cancelled,
    expiredCount: counts.expired,
    etaMs,
  };
}

export function listedMessage(message: jobs.Job): jobs.Job {
  return { ...message, request: undefined };
}

export function isOf(job: Job, states: ReadonlySet<StateKind>): boolean {
  return states.size === 0 || states.has(job.state.kind);
}
