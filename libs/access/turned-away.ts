/** What a caller hears who may not enter, or not so often. */
import { Code, Reason, StatusError } from '#core';

export function unauthenticated(): StatusError {
  return new StatusError({
    code: Code.UNAUTHENTICATED,
    reason: Reason.UNAUTHENTICATED,
    message: 'expected a token of this mesh in the metadata "authorization: Bearer …"',
  });
}

export function forbidden(message: string): StatusError {
  return new StatusError({ code: Code.PERMISSION_DENIED, reason: Reason.FORBIDDEN, message });
}

/** `whose` limit it is, and what it says. */
export function rateLimited(whose: string, { retryAfterMs, limit }: { retryAfterMs: number; limit: string }): StatusError {
  return new StatusError({
    code: Code.RESOURCE_EXHAUSTED,
    reason: Reason.RATE_LIMITED,
    message: `more than the limit of ${whose}: ${limit}`,
    quota: { subject: whose, description: limit },
    retryDelayMs: retryAfterMs,
  });
}
