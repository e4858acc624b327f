/**
 * When may a failed call be sent once more by itself? Only when nothing was drawn and the mesh is
 * expected to do better soon: nobody was reached, the router was stopping, or it named a time to
 * come back. A connection lost half-way is not among them; that call may still be drawing. A call that does
 * the same however often it comes, such as a job submitted under an id, may be repeated then as well.
 *
 * Retries on other nodes are the router's business; this is the little that only a caller can do.
 */
import { Code, type Random, Reason, type StatusError } from '#core';

export const MAX_ATTEMPTS = 3;
/** Where a mesh has answered before, somebody missing means a restart: about 10 s are given to it. */
export const MAX_RECONNECT_ATTEMPTS = 12;
const BASE_DELAY_MS = 300;
const MAX_DELAY_MS = 1200;

export interface RetryState {
  /** The attempt that failed, from 1. */
  readonly attempt: number;
  readonly random: Random;
  /** This client has had an answer before. */
  readonly known: boolean;
  /** Doing it twice is doing it once. Default false. */
  readonly repeatable?: boolean;
}

/** Somebody who should be there is not, perhaps NATS: it is perhaps starting again. */
const AWAY: ReadonlySet<string> = new Set([
  Reason.CONNECT_FAILED,
  Reason.CONNECTION_LOST,
  Reason.DRAINING,
  Reason.NO_JOBS_SERVICE,
  Reason.STORE_UNAVAILABLE,
]);

/** Milliseconds to wait before the next attempt; undefined: do not repeat. */
export function retryDelayMs(error: StatusError, { attempt, random, known, repeatable = false }: RetryState): number | undefined {
  if ((error.reason === Reason.CONNECTION_LOST || error.reason === Reason.STORE_UNAVAILABLE) && !repeatable) return undefined;
  if (attempt >= (known && AWAY.has(error.reason) ? MAX_RECONNECT_ATTEMPTS : MAX_ATTEMPTS)) return undefined;
  const { retryDelayMs: askedMs } = error.details;
  if (AWAY.has(error.reason)) {
    if (error.code !== Code.UNAVAILABLE) return undefined;
    // Half of the wait is fixed, so that a restarting router has time to come back.
    return Math.max(askedMs ?? 0, Math.min(MAX_DELAY_MS, BASE_DELAY_MS * 2 ** (attempt - 1)) * (0.5 + 0.5 * random()));
  }
  switch (error.reason) {
    case Reason.NO_NODES:
    case Reason.QUEUE_FULL:
    case Reason.RATE_LIMITED:
      // Never sooner than asked; up to half as late again, so that those turned away together do not return together.
      return askedMs === undefined ? undefined : askedMs * (1 + 0.5 * random());
    default:
      return undefined;
  }
}
