/** What KeptValue and KeptRecords make of JetStream's answers. */
import { NatsError } from 'nats';
import { Code, Reason, StatusError } from '#core';

const JETSTREAM_OFF = 'this NATS server runs without JetStream; start it with --jetstream and --store_dir';
/** JetStream's own numbers. */
export const ApiError = {
  STREAM_NOT_FOUND: 10059,
  WRONG_LAST_SEQUENCE: 10071,
  NO_MESSAGE: 10037,
  MESSAGE_TOO_LARGE: 10054,
  /** Of its bucket: no more bytes, mostly. */
  STORE_FAILED: 10077,
  /** Of its server or account. */
  NO_RESOURCES: 10023,
} as const;

export function isApiError(reason: unknown, number: (typeof ApiError)[keyof typeof ApiError]): boolean {
  return reason instanceof NatsError && reason.api_error?.err_code === number;
}

export function causeOf(reason: unknown): string {
  if (reason instanceof NatsError && reason.code === '503' && !reason.api_error) return JETSTREAM_OFF;
  if (reason instanceof NatsError && reason.code === 'TIMEOUT') return 'JetStream did not answer in time';
  if (reason instanceof NatsError && reason.api_error) return reason.api_error.description; // of some its own text is but a number
  return reason instanceof Error ? reason.message : String(reason);
}

export function storeUnavailable(cause: string, reason?: unknown): StatusError {
  return new StatusError({ code: Code.FAILED_PRECONDITION, reason: Reason.STORE_UNAVAILABLE, message: cause, cause: reason });
}

/** Until somebody makes room. */
export function storeFull(reason: unknown): StatusError {
  return new StatusError({
    code: Code.RESOURCE_EXHAUSTED,
    reason: Reason.STORE_FULL,
    message: `NATS has no room for it: ${causeOf(reason)}`,
    cause: reason,
  });
}

/** Not CONNECTION_LOST: whoever is told so by a service would take the service for lost. */
export function storeAway(reason?: unknown): StatusError {
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.STORE_UNAVAILABLE,
    message: 'NATS is away; try again when it is back',
    cause: reason,
  });
}

export function changedMeanwhile(expected: number, reason: unknown): StatusError {
  return new StatusError({
    code: Code.ABORTED,
    reason: Reason.CHANGED_MEANWHILE,
    message: `expected revision ${expected} to be the newest, somebody has written since; read again`,
    metadata: { expected_revision: String(expected) },
    cause: reason,
  });
}
