/**
 * What does an operator read when something failed? An error as plain JSON: code name and reason for
 * StatusErrors, stacks for everything else, and the chain of causes that a peer never sees.
 */
import { codeName, StatusError } from '#core';

export interface ErrorDescription {
  readonly type: string;
  readonly message: string;
  readonly code?: string;
  readonly reason?: string;
  readonly details?: object;
  readonly stack?: string;
  readonly cause?: ErrorDescription;
  readonly errors?: readonly ErrorDescription[];
}

/** A cause may name itself; the log line must end anyway. */
const MAX_DEPTH = 8;
const MAX_SIBLINGS = 5;

/** Total: describes whatever was thrown. A StatusError is made on purpose, so its own stack is left out. */
export function describeError(thrown: unknown, depth = 0): ErrorDescription {
  if (!(thrown instanceof Error)) return { type: typeof thrown, message: textOf(thrown) };
  const deeper = depth < MAX_DEPTH;
  return {
    type: thrown.name,
    message: thrown.message,
    ...(thrown instanceof StatusError ? statusFields(thrown) : foreignFields(thrown)),
    ...(deeper && thrown.cause !== undefined ? { cause: describeError(thrown.cause, depth + 1) } : {}),
    ...(deeper && thrown instanceof AggregateError
      ? { errors: thrown.errors.slice(0, MAX_SIBLINGS).map((item) => describeError(item, depth + 1)) }
      : {}),
  };
}

function statusFields(error: StatusError): Partial<ErrorDescription> {
  const hasDetails = Object.keys(error.details).length > 0;
  return { code: codeName(error.code), reason: error.reason, ...(hasDetails ? { details: error.details } : {}) };
}

/** Node's and grpc-js's errors carry a code of their own, such as ECONNREFUSED or 14. */
function foreignFields(error: Error): Partial<ErrorDescription> {
  const code = 'code' in error && (typeof error.code === 'string' || typeof error.code === 'number') ? { code: String(error.code) } : {};
  return { ...code, ...(error.stack === undefined ? {} : { stack: error.stack }) };
}

function textOf(value: unknown): string {
  if (typeof value === 'string') return value;
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return Object.prototype.toString.call(value); // circular: its kind is all that can be said
  }
}
