/** What every replica keeps in memory of each job: who, in what state, since when. About half a kilobyte; prompts stay on disk. */
import type { Priority } from '#scheduling';
import type { Job, StateKind, Webhook } from '../domain/job.js';

/** Kept up to date as the job changes: read it, do not keep figures of it. */
export interface JobEntry {
  /** Of its record. */
  readonly key: string;
  readonly tenant: string;
  readonly jobId: string;
  readonly batchId: string;
  readonly revision: number;
  readonly uid: string;
  readonly kind: StateKind;
  readonly priority: Priority;
  readonly model: string;
  readonly round: number;
  readonly attempt: number;
  readonly failedAttempts: number;
  readonly submittedAtMs: number;
  readonly expiresAtMs: number;
  /** While queued: not before then. */
  readonly notBeforeMs: number;
  /** While running: the replica with its incarnation. */
  readonly worker: string;
  readonly nodeId: string;
  /** 0: not yet. */
  readonly startedAtMs: number;
  readonly endedAtMs: number;
  readonly recordBytes: number;
  /** Of its pictures. */
  readonly storedBytes: number;
  /** Of a webhook that is to be told now; else undefined. */
  readonly webhook: Pick<Webhook, 'url' | 'eventId' | 'nextAttemptAtMs'> | undefined;
}

export type MutableEntry = { -readonly [Name in keyof JobEntry]: JobEntry[Name] };

/** `shared` gives equal texts one place in memory. */
export function entryOf(
  key: string,
  job: Job,
  stamp: { revision: number; recordBytes: number },
  shared: (text: string) => string,
): JobEntry {
  const { state, webhook } = job;
  return {
    key,
    tenant: shared(job.tenant),
    jobId: job.jobId,
    batchId: shared(job.batchId),
    ...stamp,
    uid: job.uid,
    kind: state.kind,
    priority: job.priority,
    model: shared(job.request.model),
    round: job.round,
    attempt: job.attempt,
    failedAttempts: job.failedAttempts,
    submittedAtMs: job.submittedAtMs,
    expiresAtMs: job.expiresAtMs,
    notBeforeMs: state.kind === 'queued' ? state.notBeforeMs : 0,
    worker: state.kind === 'running' ? shared(state.worker) : '',
    nodeId: state.kind === 'running' || state.kind === 'succeeded' ? shared(state.nodeId) : '',
    startedAtMs: state.kind === 'running' || state.kind === 'succeeded' ? state.startedAtMs : 0,
    endedAtMs: 'endedAtMs' in state ? state.endedAtMs : 0,
    storedBytes: state.kind === 'succeeded' ? state.result.images.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) : 0,
    webhook: webhook?.state === 'pending' ? toTell(webhook) : undefined,
  };
}

function toTell({ url, eventId, nextAttemptAtMs }: Webhook): JobEntry['webhook'] {
  return { url, eventId, nextAttemptAtMs };
}
