/** The one table from the vendor's errors to ours, for requests that expect an answer. */
import { ErrorCode, NatsError } from 'nats';
import { Code, Reason, StatusError } from '#core';

export function busAway(cause?: unknown): StatusError {
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.CONNECTION_LOST,
    message: 'NATS is away; try again when it is back',
    cause,
  });
}

export function statusFromNats(reason: unknown, subject: string, timeoutMs: number): StatusError {
  if (!(reason instanceof NatsError)) return StatusError.from(reason);
  switch (reason.code) {
    // The server knows at once that nobody subscribes: the node is gone or never was.
    case ErrorCode.NoResponders:
      return new StatusError({ code: Code.NOT_FOUND, reason: Reason.UNKNOWN_NODE, message: `nobody listens on ${subject}`, cause: reason });
    // Somebody subscribes and does not answer, or the server itself is stalled.
    case ErrorCode.Timeout:
      return new StatusError({
        code: Code.DEADLINE_EXCEEDED,
        reason: Reason.DEADLINE,
        message: `no answer on ${subject} within ${timeoutMs} ms`,
        cause: reason,
      });
    // The connection ended under the request.
    case ErrorCode.ConnectionClosed:
    case ErrorCode.Disconnect:
    case ErrorCode.Cancelled:
      return busAway(reason);
    default:
      return StatusError.from(reason);
  }
}
