/**
 * How a job and a batch are written down: JSON, so that an operator can read them with
 * `nats kv get dmesh_jobs job.acme.my-job`. What cannot be read is reported, never guessed.
 */
import { generation } from '#contracts';
import type { Job, Result, State } from './job.js';

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

/** Throws when it is no record of ours. */
export function parseRecord(key: string, text: string): StoredRecord {
  const value = JSON.parse(text) as Record<string, unknown> & { state?: { kind?: unknown } };
  const known = isJobKey(key) ? typeof value.jobId === 'string' && typeof value.state?.kind === 'string' : Array.isArray(value.jobIds);
  if (!known) throw new Error(`expected a record at ${key}, got ${text.slice(0, 80)}`);
  return isJobKey(key) ? { kind: 'job', job: parseJob(value) } : { kind: 'batch', batch: value as unknown as Batch };
}

function parseJob(value: Record<string, unknown>): Job {
  const job = value as unknown as Job;
  const state = job.state.kind === 'succeeded' ? { ...job.state, result: parseResult(job.state.result) } : job.state;
  return { ...job, request: generation.GenerateRequest.fromJSON(value.request), state: state as State };
}

function formatResult(result: Result): object {
  const images = result.images.map((image) => ({ ...image, seed: String(image.seed) }));
  return { ...result, images, used: generation.UsedParameters.toJSON(result.used) };
}

function parseResult(result: Result): Result {
  const images = result.images.map((image) => ({ ...image, seed: BigInt(image.seed) }));
  return { ...result, images, used: generation.UsedParameters.fromJSON(result.used) };
}
