/**
 * Why did a call get no answer, in one sentence that names who was called? What grpc-js says of it
 * (1.14) is meant for its own authors. Texts of the mesh pass as they are.
 */
import { Code, Reason, StatusError } from '#core';

export interface Asked {
  readonly address: string;
  readonly timeoutMs: number;
}

const CAUSES: readonly (readonly [RegExp, string])[] = [
  [/ECONNREFUSED/, 'connection refused'],
  [/ETIMEDOUT|EHOSTUNREACH|ENETUNREACH/, 'the host does not answer'],
  [/ENOENT/, 'there is no such socket'],
  [/ENOTFOUND|EAI_AGAIN|^Name resolution failed/, 'the name of the host is not known'],
];

export function inPlainWords(error: StatusError, asked: Asked): StatusError {
  const text = sentence(error, asked);
  if (text === undefined) return error;
  const { code, reason, details, cause } = error;
  return new StatusError({ ...details, code, reason, message: text, cause });
}

function sentence({ code, reason, message }: StatusError, { address, timeoutMs }: Asked): string | undefined {
  if (code === Code.DEADLINE_EXCEEDED && /^Deadline exceeded/.test(message)) {
    return `no answer from ${address} within ${timeoutMs < 1000 ? `${timeoutMs} ms` : `${timeoutMs / 1000} s`}`;
  }
  if (reason === Reason.CONNECT_FAILED && /^No connection established|^Name resolution failed/.test(message)) {
    const why =
      CAUSES.find(([pattern]) => pattern.test(message))?.[1] ?? /Last error: (?!null)(?:Error: )?(.*?)\.(?: |$)/.exec(message)?.[1];
    return `no connection to ${address}${why === undefined ? '' : `: ${why}`}`;
  }
  return undefined;
}
