/**
 * How do megabytes come in without being put together? grpc-js copies the frames of an answer into one
 * message, which its reader copies again into the frame it sends on. This leg speaks gRPC on node:http2
 * itself, for the two kinds of call a router forwards, and hands answers over as the Pieces that came.
 *
 * It keeps to what a Channel does: deadlines, cancellation, pings, windows, and errors that a program
 * can tell apart. CONNECT_FAILED never reached a handler, CONNECTION_LOST may have run.
 *
 * none → connecting → open → (GOAWAY, lost) → none; the next call connects again. Decision 0007.
 */
import { type ClientHttp2Stream, constants, type IncomingHttpHeaders, type IncomingHttpStatusHeader } from 'node:http2';
import { Code, Reason, StatusError } from '#core';
import { badStream, framed, messageReader } from './message-reader.js';
import type { Pieces } from './pieces.js';
import { authorityOf, type Connection, type ConnectionOptions, connectFailed, openConnection } from './raw-connection.js';
import { statusFromWire } from './status.js';

export interface RawLegOptions extends ConnectionOptions {
  /** Larger messages are RESOURCE_EXHAUSTED/MESSAGE_TOO_LARGE. */
  readonly maxResponseBytes: number;
}

export interface RawCallOptions {
  readonly metadata?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  readonly deadlineAt?: number;
}

export interface RawAnswer {
  readonly response: Pieces;
  readonly trailers: Readonly<Record<string, string>>;
}

type Trailers = RawAnswer['trailers'];

/** Told of one call: each message, then its end, once. */
interface Receiver {
  readonly onMessage: (message: Pieces) => void;
  readonly onEnd: (error: StatusError | undefined, trailers: Trailers) => void;
}

interface RunningCall {
  pause(): void;
  resume(): void;
  cancel(): void;
}

/** After a failed attempt, calls fail at once for this long; doubles to the maximum. */
const BACKOFF_MS = { first: 100, max: 1000 };
/** gRPC allows eight digits. */
const MAX_TIMEOUT_MS = 99_999_999;
const { NGHTTP2_CANCEL, NGHTTP2_REFUSED_STREAM } = constants;

export class RawLeg {
  readonly #options: RawLegOptions;
  #connection: Connection | undefined;
  #backoffMs = BACKOFF_MS.first;
  #failedAt = Number.NEGATIVE_INFINITY;
  #lastFailure: StatusError | undefined;

  /** `address`: "host:port" or "unix:/path". Connects on the first call. */
  constructor(
    readonly address: string,
    options: RawLegOptions,
  ) {
    this.#options = options;
  }

  unary(path: string, request: Uint8Array, options: RawCallOptions): Promise<RawAnswer> {
    return new Promise((resolve, reject) => {
      let response: Pieces | undefined;
      let surplus = false;
      this.#call(path, request, options, {
        onMessage: (message) => {
          surplus = response !== undefined;
          response = message;
        },
        onEnd: (error, trailers) => {
          if (error) reject(error);
          else if (!response || surplus)
            reject(badStream(`expected one message from ${this.address}, got ${surplus ? 'several' : 'none'}`));
          else resolve({ response, trailers });
        },
      });
    });
  }

  /** Reads from the network only what is asked for. Leaving the loop early cancels the call. */
  async *stream(path: string, request: Uint8Array, options: RawCallOptions): AsyncGenerator<Pieces, void> {
    const arrived: Pieces[] = [];
    let outcome: { error: StatusError | undefined } | undefined;
    let wake = () => {};
    const call = this.#call(path, request, options, {
      onMessage: (message) => {
        arrived.push(message);
        call.pause();
        wake();
      },
      onEnd: (error) => {
        outcome = { error };
        wake();
      },
    });
    try {
      for (;;) {
        const message = arrived.shift();
        if (message) yield message;
        else if (outcome?.error) throw outcome.error;
        else if (outcome) return;
        else {
          call.resume();
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    } finally {
      call.cancel();
    }
  }

  /** Connects now, so that the next call need not. A failure is told to that call. */
  prepare(): void {
    this.#connect();
  }

  /**
   * Calls in flight end first; those that wait for the connection fail. A session that is not open yet has nothing to
   * end, and closed gently it would wait for the farewell of a peer that may never have answered.
   */
  close(): void {
    const connection = this.#connection;
    this.#connection = undefined;
    if (connection?.open) connection.session.close();
    else connection?.session.destroy(new Error('closed before it was open'));
  }

  #call(path: string, request: Uint8Array, options: RawCallOptions, receiver: Receiver): RunningCall {
    const { clock, maxResponseBytes } = this.#options;
    const { signal, deadlineAt = Number.POSITIVE_INFINITY } = options;
    let stream: ClientHttp2Stream | undefined;
    // Undefined when the call is over. Node keeps a stream and its listeners through several small garbage
    // collections; an answer they still led to would be taken for old, and left to the next full collection.
    let told: Receiver | undefined = receiver;
    const end = (error: StatusError | undefined, trailers: Trailers = {}) => {
      if (!told) return;
      const { onEnd } = told;
      told = undefined;
      cancelTimer?.();
      signal?.removeEventListener('abort', onAbort);
      if (stream && !stream.closed && error) stream.close(NGHTTP2_CANCEL);
      stream?.resume(); // what still comes is dropped
      onEnd(error, trailers);
    };
    const onAbort = () => end(StatusError.from(signal?.reason));
    const onDeadline = () => end(deadlinePassed(this.address));
    const leftMs = deadlineAt - clock.now();
    const cancelTimer = Number.isFinite(leftMs) && leftMs > 0 ? clock.schedule(leftMs, onDeadline) : undefined;
    const start = ({ session }: Connection) => {
      if (!told) return;
      try {
        stream = session.request(this.#headers(path, deadlineAt, options.metadata));
      } catch (thrown) {
        // A session may end between two turns of the event loop, and then says so here.
        return end(session.closed || session.destroyed ? connectFailed(this.address, thrown) : StatusError.from(thrown));
      }
      const reader = messageReader(maxResponseBytes, (message) => told?.onMessage(message));
      follow(stream, this.address, {
        onChunk: (chunk) => {
          if (!told) return;
          const fault = reader.push(chunk);
          if (fault) end(fault);
        },
        onEnd: (error, trailers) => {
          if (error || reader.complete) end(error, trailers);
          else end(badStream(`expected whole messages from ${this.address}, got a part of one`));
        },
      });
      stream.end(framed(request));
    };
    if (signal?.aborted) onAbort();
    else if (leftMs <= 0) onDeadline();
    else {
      signal?.addEventListener('abort', onAbort, { once: true });
      const connection = this.#connect();
      if (connection instanceof StatusError) end(connection);
      else if (connection.open) start(connection);
      else connection.ready.then(() => start(connection), end);
    }
    return { pause: () => stream?.pause(), resume: () => stream?.resume(), cancel: () => end(cancelledByUs()) };
  }

  #headers(path: string, deadlineAt: number, metadata: RawCallOptions['metadata']): Record<string, string> {
    const leftMs = deadlineAt - this.#options.clock.now();
    return {
      ':method': 'POST',
      ':scheme': this.#options.tls ? 'https' : 'http',
      ':path': path,
      ':authority': authorityOf(this.address),
      te: 'trailers',
      'content-type': 'application/grpc',
      ...(Number.isFinite(leftMs) ? { 'grpc-timeout': `${Math.max(1, Math.min(Math.ceil(leftMs), MAX_TIMEOUT_MS))}m` } : {}),
      ...metadata,
    };
  }

  #connect(): Connection | StatusError {
    const known = this.#connection;
    if (known && !known.session.closed && !known.session.destroyed) return known;
    const { clock } = this.#options;
    if (this.#lastFailure && clock.now() < this.#failedAt + this.#backoffMs) return this.#lastFailure;
    let connection: Connection;
    try {
      connection = openConnection(this.address, this.#options);
    } catch (thrown) {
      return connectFailed(this.address, thrown); // the address is none
    }
    this.#connection = connection;
    const forget = () => {
      if (this.#connection === connection) this.#connection = undefined;
    };
    connection.session.once('goaway', forget).once('close', forget);
    connection.ready.then(
      () => {
        this.#lastFailure = undefined;
        this.#backoffMs = BACKOFF_MS.first;
      },
      (error: StatusError) => {
        if (this.#lastFailure) this.#backoffMs = Math.min(this.#backoffMs * 2, BACKOFF_MS.max);
        this.#lastFailure = error;
        this.#failedAt = clock.now();
      },
    );
    return connection;
  }
}

/** One HTTP/2 stream's events, as chunks and an end with its status. */
function follow(
  stream: ClientHttp2Stream,
  address: string,
  listener: { onChunk: (chunk: Buffer) => void; onEnd: (error: StatusError | undefined, trailers: Trailers) => void },
): void {
  let headers: IncomingHttpHeaders & IncomingHttpStatusHeader = {};
  let last: IncomingHttpHeaders | undefined;
  let cause: unknown;
  const onEnd = () => {
    // An error without a message may have its status in the first and only headers.
    const trailers = last ?? headers;
    const code = trailers['grpc-status'];
    if (code === undefined) return false;
    listener.onEnd(Number(code) === Code.OK ? undefined : statusOf(trailers), textEntries(trailers));
    return true;
  };
  stream.on('response', (received) => {
    headers = received;
  });
  stream.on('trailers', (received) => {
    last = received;
  });
  stream.on('data', listener.onChunk);
  stream.on('end', onEnd);
  stream.on('error', (error) => {
    cause = error; // 'close' follows
  });
  stream.on('close', () => {
    if (!onEnd()) listener.onEnd(brokenOff(address, { httpStatus: headers[':status'], rstCode: stream.rstCode, cause }), {});
  });
}

function statusOf(headers: IncomingHttpHeaders): StatusError {
  const text = headers['grpc-message'];
  const details = headers['grpc-status-details-bin'];
  return statusFromWire({
    code: Number(headers['grpc-status']),
    text: typeof text === 'string' ? percentDecoded(text) : '',
    // Repeated entries come joined; the first one counts.
    details: typeof details === 'string' ? Buffer.from(details.split(',')[0] ?? '', 'base64') : undefined,
  });
}

function percentDecoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function textEntries(headers: IncomingHttpHeaders): Record<string, string> {
  const entries: Record<string, string> = {};
  for (const [key, value] of Object.entries(headers)) {
    if (typeof value === 'string' && !/^:|^grpc-(status|message)$|-bin$/.test(key)) entries[key] = value;
  }
  return entries;
}

/** The stream ended and no status came. */
function brokenOff(address: string, seen: { httpStatus: number | undefined; rstCode: number | undefined; cause: unknown }): StatusError {
  const { httpStatus, rstCode, cause } = seen;
  // A refused stream was never looked at (RFC 9113, 8.7), just like one that found no connection.
  if (rstCode === NGHTTP2_REFUSED_STREAM) return connectFailed(address, cause);
  if (httpStatus !== undefined && httpStatus !== 200) return badStream(`expected HTTP status 200 from ${address}, got ${httpStatus}`);
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.CONNECTION_LOST,
    message: `${address} broke off before its status came`,
    cause,
  });
}

function deadlinePassed(address: string): StatusError {
  return new StatusError({
    code: Code.DEADLINE_EXCEEDED,
    reason: Reason.DEADLINE,
    message: `no answer from ${address} within the deadline`,
  });
}

function cancelledByUs(): StatusError {
  return new StatusError({ code: Code.CANCELLED, reason: Reason.CANCELLED, message: 'the caller left' });
}
