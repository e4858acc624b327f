/** What callers are told when pictures cannot be kept or found. */
import { Code, Reason, StatusError } from '#core';

export function storeUnavailable(why: string, cause?: unknown): StatusError {
  return new StatusError({ code: Code.UNAVAILABLE, reason: Reason.STORE_UNAVAILABLE, message: `the store of pictures: ${why}`, cause });
}

export function storeFull(why: string, cause?: unknown): StatusError {
  return new StatusError({
    code: Code.RESOURCE_EXHAUSTED,
    reason: Reason.STORE_FULL,
    message: `the store of pictures is full: ${why}`,
    cause,
  });
}

export function resultMissing(name: string, cause?: unknown): StatusError {
  const message = 'expected the picture in the store, it is not there';
  return new StatusError({ code: Code.DATA_LOSS, reason: Reason.RESULT_MISSING, message, metadata: { blob: name }, cause });
}

export function resultDamaged(name: string, sizeBytes: number): StatusError {
  const message = `expected the bytes that were drawn, the store has ${sizeBytes} others`;
  return new StatusError({ code: Code.DATA_LOSS, reason: Reason.RESULT_DAMAGED, message, metadata: { blob: name } });
}
