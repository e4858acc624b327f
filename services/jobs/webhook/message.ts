/**
 * What a receiver is told: that a job has ended, how, and what it needs to fetch the pictures. Small, without
 * prompts and pictures: a webhook may be read by many.
 */
import type { Job } from '../domain/job.js';

export interface Message {
  readonly id: string;
  readonly body: string;
}

/** Undefined for a job that has nothing to tell. */
export function messageOf(job: Job): Message | undefined {
  const { state, webhook } = job;
  if (!webhook || state.kind === 'queued' || state.kind === 'running') return undefined;
  const data = {
    job_id: job.jobId,
    tenant: job.tenant,
    batch_id: job.batchId,
    state: state.kind,
    attempt: job.attempt,
    submitted_at: new Date(job.submittedAtMs).toISOString(),
    failure: state.kind === 'failed' ? { reason: state.failure.reason, message: state.failure.message } : undefined,
    images:
      state.kind === 'succeeded'
        ? state.result.images.map(({ sha256, sizeBytes, mimeType, width, height, seed }) => {
            // As JSON has uint64 in proto3: more digits than a number keeps.
            return { sha256, size_bytes: sizeBytes, mime_type: mimeType, width, height, seed: String(seed) };
          })
        : undefined,
  };
  return {
    id: webhook.eventId,
    body: JSON.stringify({ type: `job.${state.kind}`, timestamp: new Date(state.endedAtMs).toISOString(), data }),
  };
}
