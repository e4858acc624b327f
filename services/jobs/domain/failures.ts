/**
 * What does an attempt that failed mean for its job? Final: every attempt would fail so. Counted: it uses up one of
 * the job's retries. Waits: nothing is wrong with the job, and it goes on waiting until it expires; `scope` says for
 * whom the way is barred meanwhile.
 *
 * The mesh has tried on several nodes already by the time a failure comes here (libs/breaker, outcome.ts). Which node
 * was to blame is no question any more.
 */
import { Code, type Random, Reason, type StatusError } from '#core';

/** Whose jobs would meet the same: those of one model, class or tenant; all; or only this one. */
export type Scope = (typeof SCOPES)[number];
export const SCOPES = ['all', 'model', 'class', 'tenant', 'job'] as const;

export type Verdict = { readonly kind: 'final' } | { readonly kind: 'counted' } | { readonly kind: 'waits'; readonly scope: Scope };

const FINAL: Verdict = { kind: 'final' };
const COUNTED: Verdict = { kind: 'counted' };
const waits = (scope: Scope): Verdict => ({ kind: 'waits', scope });

const BY_REASON: ReadonlyMap<string, Verdict> = new Map(
  Object.entries<Verdict>({
    [Reason.BAD_REQUEST]: FINAL, // the model's limits have changed since it was accepted
    [Reason.UNKNOWN_LORA]: FINAL,
    [Reason.LORA_UNUSABLE]: FINAL,
    [Reason.PROMPT_TOO_LONG]: FINAL,
    [Reason.MESSAGE_TOO_LARGE]: FINAL,
    [Reason.FORBIDDEN]: FINAL, // the tenant may not ask for this
    [Reason.POISON]: FINAL, // it has broken two nodes

    [Reason.INTERNAL]: COUNTED,
    [Reason.EXECUTION_TIMEOUT]: COUNTED,
    [Reason.MODEL_UNUSABLE]: COUNTED,
    [Reason.OUT_OF_MEMORY]: COUNTED,
    [Reason.ENGINE_CRASHED]: COUNTED,
    [Reason.ENGINE_STALLED]: COUNTED,
    [Reason.NAN_OUTPUT]: COUNTED,
    [Reason.BLANK_OUTPUT]: COUNTED,
    [Reason.BAD_STREAM]: COUNTED,

    [Reason.NO_NODES]: waits('model'),
    [Reason.UNKNOWN_MODEL]: waits('model'), // it was served when the job was accepted: its nodes are away
    [Reason.ROUTE_UNSERVED]: waits('model'),
    [Reason.QUEUE_FULL]: waits('class'),
    [Reason.RATE_LIMITED]: waits('tenant'),
    [Reason.UNAUTHENTICATED]: waits('all'), // our own token, an operator's to mend
    [Reason.CONNECT_FAILED]: waits('all'),
    [Reason.CONNECTION_LOST]: waits('all'), // the router is gone, and the picture with it
    [Reason.DRAINING]: waits('all'),
    [Reason.NODE_BUSY]: waits('job'),
    [Reason.ENGINE_BUSY]: waits('job'),
    [Reason.ENGINE_NOT_READY]: waits('job'),
    [Reason.QUEUE_TIMEOUT]: waits('job'), // the router's patience, not the job's
    [Reason.DEADLINE_UNREACHABLE]: waits('job'), // others may still be in time
    [Reason.DEADLINE]: waits('job'),
    [Reason.IDLE_READER]: waits('job'), // ours: this process stood still
    [Reason.CANCELLED]: waits('job'), // not by the job's owner: that changes its record
  }),
);

/** For reasons this mesh does not know. */
const BY_CODE: Readonly<Partial<Record<number, Verdict>>> = {
  [Code.INVALID_ARGUMENT]: FINAL,
  [Code.OUT_OF_RANGE]: FINAL,
  [Code.PERMISSION_DENIED]: FINAL,
  [Code.UNAUTHENTICATED]: waits('all'),
  [Code.NOT_FOUND]: waits('model'),
  [Code.RESOURCE_EXHAUSTED]: waits('class'),
  [Code.UNAVAILABLE]: waits('all'),
  [Code.DEADLINE_EXCEEDED]: waits('job'),
  [Code.CANCELLED]: waits('job'),
  [Code.ABORTED]: waits('job'),
};

/** Total: what is not known is counted, so that nothing repeats for ever. */
export function verdictOf({ code, reason }: Pick<StatusError, 'code' | 'reason'>): Verdict {
  return BY_REASON.get(reason) ?? BY_CODE[code] ?? COUNTED;
}

export interface RetrySettings {
  /** After so many counted failures and one more a job has failed. */
  readonly retryCount: number;
  /** Before the first retry; doubled for each further one. */
  readonly retryDelayMs: number;
}

/** Nobody waits longer than this between two tries of the same job. */
const MAX_RETRY_DELAY_MS = 30 * 60_000;
/** Those that failed together do not return together. */
const JITTER_RATIO = 0.25;

/** How long after its `failedAttempts`-th counted failure a job is tried again; undefined: it has failed. */
export function retryDelayMs(failedAttempts: number, settings: RetrySettings, random: Random): number | undefined {
  if (failedAttempts > settings.retryCount) return undefined;
  const delayMs = Math.min(MAX_RETRY_DELAY_MS, settings.retryDelayMs * 2 ** (failedAttempts - 1));
  return delayMs * (1 + JITTER_RATIO * random());
}

const FIRST_PAUSE_MS = 250;
const MAX_PAUSE_MS = 30_000;

/** How long what is barred stays so after the `times`-th refusal in a row. */
export function pauseMs(times: number, random: Random): number {
  return Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(times - 1, 20)) * (1 + JITTER_RATIO * random());
}
