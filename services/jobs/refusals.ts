/** What callers of the jobs service hear who cannot have what they ask for. */
import { Code, Reason, StatusError } from '#core';
import type { StateKind } from './domain/job.js';

export function unknownJob(jobId: string): StatusError {
  return unknown('job', jobId);
}

export function unknownBatch(batchId: string): StatusError {
  return unknown('batch', batchId);
}

/** Of others or of nobody: no difference is told. */
function unknown(type: 'job' | 'batch', name: string): StatusError {
  return new StatusError({
    code: Code.NOT_FOUND,
    reason: Reason.UNKNOWN_JOB,
    message: `there is no ${type} ${name}, or it was forgotten`,
    resource: { type, name, description: `expected a ${type} of your own` },
  });
}

/** `fields`: as in the request that came. */
export function jobDiffers(type: 'job' | 'batch', name: string, fields: readonly string[]): StatusError {
  return new StatusError({
    code: Code.ALREADY_EXISTS,
    reason: Reason.JOB_DIFFERS,
    message: `there is a ${type} ${name} already, with another ${fields.join(', ')}`,
    resource: { type, name, description: 'already exists' },
    metadata: { fields: fields.join(',') },
  });
}

/** Of a batch that would be new. `fields`: as in the request that came. */
export function idsTaken(batchId: string, fields: readonly string[]): StatusError {
  return new StatusError({
    code: Code.ALREADY_EXISTS,
    reason: Reason.JOB_DIFFERS,
    message: `the batch ${batchId} was not accepted: there are other jobs already with the ids of ${fields.join(', ')}`,
    resource: { type: 'batch', name: batchId, description: 'names jobs that exist already' },
    metadata: { fields: fields.join(',') },
  });
}

/** `key`: of the bucket. */
export function recordDamaged(key: string, cause: unknown): StatusError {
  const message = `the record ${key} cannot be read`;
  return new StatusError({ code: Code.DATA_LOSS, reason: Reason.RECORD_DAMAGED, message, metadata: { key }, cause });
}

export function isRecordDamaged(thrown: unknown): boolean {
  return StatusError.from(thrown).reason === Reason.RECORD_DAMAGED;
}

/** For who goes through many jobs: one that is damaged is passed over. */
export function unlessDamaged(thrown: unknown): undefined {
  if (!isRecordDamaged(thrown)) throw thrown;
}

export function jobEnded(jobId: string, state: StateKind): StatusError {
  return wrongState(Reason.JOB_ENDED, `the job ${jobId} has ${ENDED[state] ?? 'ended'}`, state);
}

export function jobActive(jobId: string, state: StateKind): StatusError {
  return wrongState(Reason.JOB_ACTIVE, `the job ${jobId} has not ended: it is ${state}`, state);
}

export function noResult(jobId: string, state: StateKind): StatusError {
  return wrongState(
    Reason.NO_RESULT,
    `the job ${jobId} has no pictures: it ${ENDED[state] ? `has ${ENDED[state]}` : `is ${state}`}`,
    state,
  );
}

const ENDED: Readonly<Partial<Record<StateKind, string>>> = {
  succeeded: 'succeeded',
  failed: 'failed',
  cancelled: 'been cancelled',
  expired: 'expired',
};

function wrongState(reason: string, message: string, state: StateKind): StatusError {
  return new StatusError({ code: Code.FAILED_PRECONDITION, reason, message, metadata: { state: state.toUpperCase() } });
}

export function tooManyJobs(tenant: string, { limit, waiting }: { limit: number; waiting: number }): StatusError {
  return beyondBound(Reason.TOO_MANY_JOBS, tenant, `at most ${limit} jobs that wait, ${waiting} do`);
}

export function tooManyBytes(
  tenant: string,
  { limit, stored, promised }: { limit: number; stored: number; promised: number },
): StatusError {
  const description = `at most ${limit} bytes of pictures, ${stored} are kept and jobs not drawn yet will take about ${promised}`;
  return beyondBound(Reason.TOO_MANY_BYTES, tenant, description);
}

function beyondBound(reason: string, tenant: string, description: string): StatusError {
  return new StatusError({
    code: Code.RESOURCE_EXHAUSTED,
    reason,
    message: `more than the bound of tenant ${tenant}: ${description}`,
    quota: { subject: `tenant ${tenant}`, description },
  });
}

export function recordsFull(limitBytes: number): StatusError {
  return new StatusError({
    code: Code.RESOURCE_EXHAUSTED,
    reason: Reason.STORE_FULL,
    message: `the records of all jobs have come near the ${limitBytes} bytes they may take`,
  });
}

/** It has just started, or NATS is away: better no answer than half of one. */
export function notReady(): StatusError {
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.STORE_UNAVAILABLE,
    message: 'the records of jobs have not been read yet; try again',
    retryDelayMs: 1000,
  });
}
