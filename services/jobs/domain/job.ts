/**
 * What a job is, and the only ways in which it may change. Pure: the record of a job is replaced by what
 * `change` returns, by compare and set, and by nothing else.
 *
 *               ┌────────── set back (try again later) ─────────┐
 *   accepted ─► QUEUED ── begun (a node draws) ──► RUNNING ─────┘
 *                 │                                   ├── succeeded ──► SUCCEEDED
 *                 ├───────────── failed ──────────────┼─────────────► FAILED ────┐
 *                 ├──────────── cancelled ────────────┼─────────────► CANCELLED ─┼── retried ──► QUEUED, next round
 *                 └───────────── expired ─────────────┴─────────────► EXPIRED ───┘
 *
 * Time goes one way: (round, attempt, phase) of a job only ever rises, where the phases of an attempt are
 * running, set back, ended. An attempt that was thought dead therefore cannot speak for a later one.
 */
import type { generation } from '#contracts';
import type { Code } from '#core';
import type { Priority } from '#scheduling';

export interface Job {
  /** Never equal to another's, also when a job is deleted and its id used again. */
  readonly uid: string;
  readonly tenant: string;
  readonly jobId: string;
  /** '' when submitted alone. */
  readonly batchId: string;
  /** As accepted, with model and seed; `requestId` is empty and `priority` unspecified in it. */
  readonly request: generation.GenerateRequest;
  readonly priority: Priority;
  /** Milliseconds since 1970, as everything here that ends in AtMs. */
  readonly submittedAtMs: number;
  readonly expiresAtMs: number;
  /** 1, and one more for each time it was retried by hand. */
  readonly round: number;
  /** Times it was begun, over all rounds: the fence of attempts and part of the names of their pictures. */
  readonly attempt: number;
  /** Of this round, those that count against its retries. */
  readonly failedAttempts: number;
  /** Why it was set back last; in the state when it failed for good. */
  readonly lastFailure?: Failure | undefined;
  readonly state: State;
  readonly webhook?: Webhook | undefined;
}

export type State =
  /** `notBeforeMs` 0: at once. */
  | { readonly kind: 'queued'; readonly notBeforeMs: number }
  /** `worker` is the replica with its incarnation, which alone may tell what becomes of it. */
  | { readonly kind: 'running'; readonly worker: string; readonly nodeId: string; readonly startedAtMs: number }
  | {
      readonly kind: 'succeeded';
      readonly nodeId: string;
      readonly startedAtMs: number;
      readonly endedAtMs: number;
      readonly result: Result;
    }
  | { readonly kind: 'failed'; readonly endedAtMs: number; readonly failure: Failure }
  | { readonly kind: 'cancelled'; readonly endedAtMs: number }
  | { readonly kind: 'expired'; readonly endedAtMs: number };

export type StateKind = State['kind'];

export interface Failure {
  readonly code: Code;
  readonly reason: string;
  readonly message: string;
}

export interface Result {
  readonly images: readonly StoredImage[];
  readonly used: generation.UsedParameters;
  readonly executingMs: number;
}

export interface StoredImage {
  /** In the store. */
  readonly blob: string;
  readonly mimeType: string;
  readonly width: number;
  readonly height: number;
  readonly seed: bigint;
  readonly sizeBytes: number;
  readonly sha256: string;
}

/** Who is told when it has ended, and how far that is. Waits until then. */
export interface Webhook {
  readonly url: string;
  readonly state: 'waiting' | 'pending' | 'delivered' | 'givenUp';
  /** Equal in every repetition of one message; '' while waiting. */
  readonly eventId: string;
  readonly attempts: number;
  /** Of the first attempt; 0 while there was none. */
  readonly firstAttemptAtMs: number;
  readonly nextAttemptAtMs: number;
  readonly lastError: string;
}

export type Change =
  /** A node has begun to draw it; again for the same worker when the mesh moved it to another node. */
  | { readonly kind: 'begun'; readonly worker: string; readonly nodeId: string; readonly atMs: number }
  | { readonly kind: 'succeeded'; readonly worker: string; readonly attempt: number; readonly atMs: number; readonly result: Result }
  /** `counted`: it uses up one of its retries. Without a failure: its worker has died. */
  | { readonly kind: 'setBack'; readonly failure?: Failure; readonly counted: boolean; readonly notBeforeMs: number }
  | { readonly kind: 'failed'; readonly failure: Failure; readonly atMs: number }
  | { readonly kind: 'cancelled'; readonly atMs: number }
  | { readonly kind: 'expired'; readonly atMs: number }
  | { readonly kind: 'retried'; readonly expiresAtMs: number }
  /** What became of the webhook. */
  | { readonly kind: 'told'; readonly eventId: string; readonly webhook: Webhook };

/** The job after the change; undefined when it cannot happen to this job now, such as a result of an attempt that is over. */
export function change(job: Job, what: Change): Job | undefined {
  const { state } = job;
  switch (what.kind) {
    case 'begun': {
      const running: State = { kind: 'running', worker: what.worker, nodeId: what.nodeId, startedAtMs: what.atMs };
      if (state.kind === 'queued') return { ...job, attempt: job.attempt + 1, state: running };
      const moved = state.kind === 'running' && state.worker === what.worker;
      return moved ? { ...job, state: { ...running, startedAtMs: state.startedAtMs } } : undefined;
    }
    case 'succeeded': {
      if (state.kind !== 'running' || state.worker !== what.worker || job.attempt !== what.attempt) return undefined;
      const { nodeId, startedAtMs } = state;
      return ended(job, { kind: 'succeeded', nodeId, startedAtMs, endedAtMs: what.atMs, result: what.result });
    }
    case 'setBack': {
      if (isEnded(job)) return undefined;
      const { counted, failure = job.lastFailure, notBeforeMs } = what;
      const failedAttempts = job.failedAttempts + (counted ? 1 : 0);
      return { ...job, failedAttempts, lastFailure: failure, state: { kind: 'queued', notBeforeMs } };
    }
    case 'failed':
      return isEnded(job) ? undefined : ended(job, { kind: 'failed', endedAtMs: what.atMs, failure: what.failure });
    case 'cancelled':
    case 'expired':
      return isEnded(job) ? undefined : ended(job, { kind: what.kind, endedAtMs: what.atMs });
    case 'retried': {
      if (state.kind !== 'failed' && state.kind !== 'cancelled' && state.kind !== 'expired') return undefined;
      const { expiresAtMs } = what;
      const webhook = job.webhook && { ...job.webhook, ...UNTOLD };
      const lastFailure = state.kind === 'failed' ? state.failure : job.lastFailure;
      const round = job.round + 1;
      return { ...job, round, failedAttempts: 0, expiresAtMs, lastFailure, webhook, state: { kind: 'queued', notBeforeMs: 0 } };
    }
    case 'told':
      return job.webhook?.state === 'pending' && job.webhook.eventId === what.eventId ? { ...job, webhook: what.webhook } : undefined;
    default:
      return what satisfies never;
  }
}

/** A webhook of which nothing was said yet. */
export const UNTOLD = {
  state: 'waiting',
  eventId: '',
  attempts: 0,
  firstAttemptAtMs: 0,
  nextAttemptAtMs: 0,
  lastError: '',
} as const satisfies Omit<Webhook, 'url'>;

export function isEnded({ state }: Job): boolean {
  return state.kind !== 'queued' && state.kind !== 'running';
}

function ended(job: Job, state: Extract<State, { endedAtMs: number }>): Job {
  const { webhook } = job;
  if (!webhook) return { ...job, state };
  const pending: Webhook = {
    ...webhook,
    ...UNTOLD,
    state: 'pending',
    eventId: `${job.uid}-${job.round}`,
    nextAttemptAtMs: state.endedAtMs,
  };
  return { ...job, state, webhook: pending };
}
