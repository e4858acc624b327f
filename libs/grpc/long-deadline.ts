/**
 * grpc-js (1.14) counts a caller's timeout in 32 bits: one of more than 24 days, which some clients send for "never",
 * may come out as one that has passed. So what is too long for it is shortened before it looks. Its HTTP/2 servers are
 * not public; where they are not found such calls end at once, and long-deadline.test.ts tells.
 */
import { EventEmitter } from 'node:events';
import type { IncomingHttpHeaders } from 'node:http2';

const HEADER = 'grpc-timeout';
const UNIT_SECONDS: Readonly<Record<string, number>> = { H: 3600, M: 60, S: 1 };
/** 2^31 ms. */
const MAX_SECONDS = 2_147_483;

/** Of a server that listens. */
export function shortenLongDeadlines(server: object): void {
  const listeners = 'http2Servers' in server ? server.http2Servers : undefined;
  if (!(listeners instanceof Map)) return;
  for (const listener of listeners.keys()) {
    if (listener instanceof EventEmitter) listener.prependListener('stream', (_stream, headers: IncomingHttpHeaders) => shorten(headers));
  }
}

function shorten(headers: IncomingHttpHeaders): void {
  const [, count = '', unit = ''] = /^(\d{1,8})([HMS])$/.exec(String(headers[HEADER])) ?? [];
  if (Number(count) * (UNIT_SECONDS[unit] ?? 0) > MAX_SECONDS) headers[HEADER] = `${MAX_SECONDS}S`;
}
