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
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
  type IncomingHttpStatusHeader,
} from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { type Clock, Code, Reason, StatusError } from '#core';
import { Pieces } from './pieces.js';
import { statusFromWire } from './status.js';

export interface RawLegOptions {
  readonly clock: Clock;
  /** Larger messages are RESOURCE_EXHAUSTED/MESSAGE_TOO_LARGE. */
  readonly maxResponseBytes: number;
  readonly windowBytes: number;
  /** As in ChannelOptions. */
  readonly keepaliveMs?: number | undefined;
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

interface Connection {
  readonly session: ClientHttp2Session;
  /** Resolves when the peer has spoken HTTP/2; rejects with CONNECT_FAILED. */
  readonly ready: Promise<void>;
  open: boolean;
}

/** After a failed attempt, calls fail at once for this long; doubles to the maximum. */
const BACKOFF_MS = { first: 100, max: 1000 };
/** For a peer that accepts and says nothing; shorter where pings are. */
const CONNECT_TIMEOUT_MS = 20_000;
/** gRPC allows eight digits. */
const MAX_TIMEOUT_MS = 99_999_999;
const HEADER_BYTES = 5;
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

  /** Calls in flight end first. */
  close(): void {
    this.#connection?.session.close();
    this.#connection = undefined;
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
      ':scheme': 'http',
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
    const connection = openConnection(this.address, this.#options);
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

function openConnection(address: string, options: RawLegOptions): Connection {
  const { clock, keepaliveMs, windowBytes } = options;
  const session = connect(`http://${authorityOf(address)}`, {
    settings: { initialWindowSize: windowBytes, enablePush: false },
    maxSessionMemory: Number.MAX_SAFE_INTEGER, // messages have their own limit
    ...(address.startsWith('unix:') ? { createConnection: () => connectSocket(address.slice('unix:'.length)) } : {}),
  });
  let cause: unknown;
  session.on('error', (error) => {
    cause = error; // 'close' follows
  });
  session.once('connect', () => session.setLocalWindowSize(windowBytes));
  const ready = new Promise<void>((resolve, reject) => {
    const patienceMs = keepaliveMs === undefined ? CONNECT_TIMEOUT_MS : keepaliveMs * 2;
    const cancelTimer = clock.schedule(patienceMs, () => session.destroy(new Error(`no word within ${patienceMs} ms`)));
    session.once('close', () => {
      cancelTimer();
      reject(connectFailed(address, cause));
    });
    session.once('remoteSettings', () => {
      cancelTimer();
      connection.open = true;
      if (keepaliveMs !== undefined) keepAlive(session, keepaliveMs, clock);
      resolve();
    });
  });
  const connection: Connection = { session, ready, open: false };
  return connection;
}

/** Pings after each pause; a peer that leaves one unanswered for as long is gone. */
function keepAlive(session: ClientHttp2Session, keepaliveMs: number, clock: Clock): void {
  let cancelTimer = () => {};
  const pause = () => {
    cancelTimer = clock.schedule(keepaliveMs, ping);
  };
  const ping = () => {
    cancelTimer = clock.schedule(keepaliveMs, () => session.destroy(new Error(`no answer to a ping within ${keepaliveMs} ms`)));
    session.ping((error) => {
      cancelTimer();
      if (!error && !session.destroyed) pause();
    });
  };
  session.once('close', () => cancelTimer());
  pause();
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

/** gRPC's frames: a flag, four bytes of length, the message. They lie in chunks as it happens. */
function messageReader(maxBytes: number, deliver: (message: Pieces) => void) {
  let headerCount = 0;
  let missing = 0;
  let pieces: Uint8Array[] = [];
  const deliverWhole = () => {
    if (headerCount < HEADER_BYTES || missing > 0) return;
    const message = new Pieces(pieces);
    headerCount = 0;
    pieces = [];
    deliver(message);
  };
  /** One byte of the header; returns what is wrong with it. */
  const readHeader = (byte: number): StatusError | undefined => {
    if (headerCount++ > 0) missing = missing * 256 + byte;
    else if (byte === 1) return badStream('expected plain messages, got a compressed one');
    else if (byte !== 0) return badStream(`expected a gRPC message, got one that begins with ${byte}`);
    if (headerCount < HEADER_BYTES || missing <= maxBytes) return undefined;
    return new StatusError({
      code: Code.RESOURCE_EXHAUSTED,
      reason: Reason.MESSAGE_TOO_LARGE,
      message: `expected messages of at most ${maxBytes} bytes, got one of ${missing}`,
    });
  };
  return {
    /** Nothing is left of a message. */
    get complete(): boolean {
      return headerCount === 0;
    },
    push(chunk: Uint8Array): StatusError | undefined {
      for (let at = 0; at < chunk.length; deliverWhole()) {
        if (headerCount < HEADER_BYTES) {
          const fault = readHeader(chunk[at++] ?? 0);
          if (fault) return fault;
        } else {
          const piece = chunk.subarray(at, at + missing);
          pieces.push(piece);
          missing -= piece.length;
          at += piece.length;
        }
      }
      return undefined;
    },
  };
}

function framed(request: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(HEADER_BYTES + request.length);
  frame.writeUInt8(0, 0);
  frame.writeUInt32BE(request.length, 1);
  frame.set(request, HEADER_BYTES);
  return frame;
}

function authorityOf(address: string): string {
  return address.startsWith('unix:') ? 'localhost' : address;
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

function connectFailed(address: string, cause: unknown): StatusError {
  const text = cause instanceof Error ? `: ${cause.message}` : '';
  return new StatusError({ code: Code.UNAVAILABLE, reason: Reason.CONNECT_FAILED, message: `no connection to ${address}${text}`, cause });
}

function badStream(message: string): StatusError {
  return new StatusError({ code: Code.INTERNAL, reason: Reason.BAD_STREAM, message });
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
