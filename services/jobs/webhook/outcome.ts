/** What came of one attempt to tell a receiver, and when it is told again. */
import type { Random } from '#core';
import type { Webhook } from '../domain/job.js';

export type Outcome =
  /** Answered with a 2xx. */
  | { readonly kind: 'delivered' }
  /** Tried again, whatever the reason: names and addresses, secrets and certificates are put right by people. */
  | { readonly kind: 'failed'; readonly reason: Exclude<FailureReason, 'gone'>; readonly error: string }
  /** 410: the receiver wants nothing more (Standard Webhooks). */
  | { readonly kind: 'unwanted'; readonly reason: 'gone'; readonly error: string };

/** Label of a metric. */
export type FailureReason =
  /** It answered, but not with a 2xx. */
  | 'status'
  /** It sent us elsewhere, where we do not go. */
  | 'redirect'
  | 'timeout'
  /** No connection, or none that can be trusted. */
  | 'connect'
  /** The connection broke before the answer. */
  | 'lost'
  /** Its name leads nowhere. */
  | 'name'
  /** Its name leads where webhooks may not go, or its URL is not allowed any more. */
  | 'address'
  /** There is no secret to sign with any more. */
  | 'secret'
  | 'gone';

export interface RetrySettings {
  readonly firstDelayMs: number;
  /** Delays double up to this. */
  readonly maxDelayMs: number;
  /** From the first attempt to the last. */
  readonly giveUpAfterMs: number;
}

/** Full jitter would now and then ask again at once; none would ask with all jobs of a batch in the same second. */
const JITTER_RATIO = 0.5;

/** The webhook after an attempt that ended at `nowMs` of the wall clock. */
export function afterAttempt(
  webhook: Webhook,
  outcome: Outcome,
  { nowMs, random, ...retry }: RetrySettings & { nowMs: number; random: Random },
): Webhook {
  const attempts = webhook.attempts + 1;
  const firstAttemptAtMs = webhook.firstAttemptAtMs || nowMs;
  const told = { ...webhook, attempts, firstAttemptAtMs, nextAttemptAtMs: 0 };
  if (outcome.kind === 'delivered') return { ...told, state: 'delivered', lastError: '' };
  const lastAttemptAtMs = firstAttemptAtMs + retry.giveUpAfterMs;
  if (outcome.kind === 'unwanted' || nowMs >= lastAttemptAtMs) return { ...told, state: 'givenUp', lastError: outcome.error };
  const delayMs = Math.min(retry.firstDelayMs * 2 ** (attempts - 1), retry.maxDelayMs) * (1 - JITTER_RATIO * random());
  return { ...told, nextAttemptAtMs: Math.min(Math.round(nowMs + delayMs), lastAttemptAtMs), lastError: outcome.error };
}
