/**
 * How a job and a batch are written down: JSON, so that an operator can read them with
 * `nats kv get dmesh_jobs job.acme.my-job`. What cannot be read is reported, never guessed.
 */
import { generation } from '#contracts';
import { PRIORITIES } from '#scheduling';
import type { Job, Result, StateKind } from './job.js';

/** Commits the jobs that name it: before it is there, they are not seen. */
export interface Batch {
  readonly tenant: string;
  readonly batchId: string;
  readonly submittedAtMs: number;
  readonly jobIds: readonly string[];
  /** SHA-256 of all its requests: equal for a repeated submission. */
  readonly digest: string;
}

export type StoredRecord = { readonly kind: 'job'; readonly job: Job } | { readonly kind: 'batch'; readonly batch: Batch };

const JOB_ID = /^[A-Za-z0-9_-]{1,64}$/;
export const JOB_ID_RULE = '1 to 64 of A-Z a-z 0-9 _ -';

export function isJobId(text: string): boolean {
  return JOB_ID.test(text);
}

export function jobKey(tenant: string, jobId: string): string {
  return `job.${tenantToken(tenant)}.${jobId}`;
}

export function batchKey(tenant: string, batchId: string): string {
  return `batch.${tenantToken(tenant)}.${batchId}`;
}

export function isJobKey(key: string): boolean {
  return key.startsWith('job.');
}

/** Dots part the tokens of a key; a tenant's own are written as =2E. */
function tenantToken(tenant: string): string {
  return tenant.replaceAll('.', '=2E');
}

export function formatJob(job: Job): string {
  const { request, state } = job;
  return JSON.stringify({
    ...job,
    request: generation.GenerateRequest.toJSON(request),
    state: state.kind === 'succeeded' ? { ...state, result: formatResult(state.result) } : state,
  });
}

export function formatBatch(batch: Batch): string {
  return JSON.stringify(batch);
}

/** Throws when it is no record of ours: all that is relied on is there, and of its type. */
export function parseRecord(key: string, text: string): StoredRecord {
  const value: unknown = JSON.parse(text);
  const isRight = isJobKey(key)
    ? isJob(value) && jobKey(value.tenant, value.jobId) === key
    : isBatch(value) && batchKey(value.tenant, value.batchId) === key;
  if (!isRight) throw new Error(`expected a record at ${key}, got ${text.slice(0, 80)}`);
  return isJobKey(key) ? { kind: 'job', job: parseJob(value as Job) } : { kind: 'batch', batch: value as Batch };
}

type Fields = Readonly<Record<string, 'string' | 'number' | 'object'>>;

const JOB_FIELDS = {
  uid: 'string',
  tenant: 'string',
  jobId: 'string',
  batchId: 'string',
  request: 'object',
  submittedAtMs: 'number',
  expiresAtMs: 'number',
  round: 'number',
  attempt: 'number',
  failedAttempts: 'number',
} as const satisfies Fields;
const STATE_FIELDS: Readonly<Record<StateKind, Fields>> = {
  queued: { notBeforeMs: 'number' },
  running: { worker: 'string', nodeId: 'string', startedAtMs: 'number' },
  succeeded: { nodeId: 'string', startedAtMs: 'number', endedAtMs: 'number', result: 'object' },
  failed: { endedAtMs: 'number', failure: 'object' },
  cancelled: { endedAtMs: 'number' },
  expired: { endedAtMs: 'number' },
};
const FAILURE_FIELDS: Fields = { code: 'number', reason: 'string', message: 'string' };
const RESULT_FIELDS: Fields = { images: 'object', used: 'object', executingMs: 'number' };
const IMAGE_FIELDS: Fields = {
  blob: 'string',
  mimeType: 'string',
  width: 'number',
  height: 'number',
  seed: 'string',
  sizeBytes: 'number',
  sha256: 'string',
};
const WEBHOOK_FIELDS: Fields = {
  url: 'string',
  state: 'string',
  eventId: 'string',
  attempts: 'number',
  firstAttemptAtMs: 'number',
  nextAttemptAtMs: 'number',
  lastError: 'string',
};
const BATCH_FIELDS: Fields = { tenant: 'string', batchId: 'string', submittedAtMs: 'number', jobIds: 'object', digest: 'string' };

function has(value: unknown, fields: Fields): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  const given = value as Record<string, unknown>;
  return Object.entries(fields).every(([name, type]) => typeof given[name] === type && given[name] !== null);
}

function isJob(value: unknown): value is Job {
  if (!has(value, JOB_FIELDS)) return false;
  const { lastFailure, priority, state, webhook } = value;
  const isFailureRight = lastFailure === undefined || has(lastFailure, FAILURE_FIELDS);
  const isWebhookRight = webhook === undefined || has(webhook, WEBHOOK_FIELDS);
  return PRIORITIES.some((known) => known === priority) && isState(state) && isFailureRight && isWebhookRight;
}

function isState(value: unknown): boolean {
  if (!has(value, { kind: 'string' })) return false;
  const { failure, kind, result } = value;
  const fields = Object.entries(STATE_FIELDS).find(([known]) => known === kind)?.[1];
  if (!fields || !has(value, fields)) return false;
  if (kind === 'failed') return has(failure, FAILURE_FIELDS);
  if (kind !== 'succeeded') return true;
  return has(result, RESULT_FIELDS) && Array.isArray(result.images) && result.images.every((image) => has(image, IMAGE_FIELDS));
}

function isBatch(value: unknown): value is Batch {
  return has(value, BATCH_FIELDS) && Array.isArray(value.jobIds) && value.jobIds.every((id) => typeof id === 'string');
}

function parseJob(job: Job): Job {
  const { request, state } = job;
  const parsed = state.kind === 'succeeded' ? { ...state, result: parseResult(state.result) } : state;
  return { ...job, request: generation.GenerateRequest.fromJSON(request), state: parsed };
}

function formatResult(result: Result): object {
  const images = result.images.map((image) => ({ ...image, seed: String(image.seed) }));
  return { ...result, images, used: generation.UsedParameters.toJSON(result.used) };
}

function parseResult(result: Result): Result {
  const images = result.images.map((image) => ({ ...image, seed: BigInt(image.seed) }));
  return { ...result, images, used: generation.UsedParameters.fromJSON(result.used) };
}
