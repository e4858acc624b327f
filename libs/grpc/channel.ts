/**
 * The client side of grpc-js: one Channel is one peer. Calls are promises and async iterables, take
 * a signal and a deadline, and throw StatusErrors. Retries belong to the caller (the router), so
 * grpc-js's own are off: it retries nothing over 1 MB anyway. Raw calls go over a connection of their
 * own, without grpc-js (raw-leg.ts).
 */
import { Client, connectivityState } from '@grpc/grpc-js';
import { type Clock, Code, Reason, StatusError } from '#core';
import { type ClientTls, explainTlsFailure } from '#tls';
import { channelCredentials } from './credentials.js';
import { metadataOf, textEntries } from './metadata.js';
import type { Method } from './method.js';
import './no-words.js';
import type { Pieces } from './pieces.js';
import { RawLeg } from './raw-leg.js';
import { statusFromGrpc } from './status.js';

export interface ChannelOptions {
  readonly clock: Clock;
  /** Larger answers are RESOURCE_EXHAUSTED/MESSAGE_TOO_LARGE. */
  readonly maxResponseBytes?: number;
  /** A raw call fails with CONNECT_FAILED when there is no HTTP/2 connection by then; with pings, after twice `keepaliveMs` at the latest. Default 10 s. */
  readonly connectTimeoutMs?: number;
  /**
   * Sends HTTP/2 pings this often and gives up after as long again, also while idle; the proof of
   * life of a long stream. Absent: no pings.
   */
  readonly keepaliveMs?: number;
  /** Absent: plain. */
  readonly tls?: ClientTls | undefined;
}

export interface CallOptions {
  readonly metadata?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  /** In clock milliseconds. Infinity: none. */
  readonly deadlineAt?: number;
}

export interface Answer<Res> {
  readonly response: Res;
  readonly trailers: Readonly<Record<string, string>>;
}

export interface Duplex<Req, Res> {
  /** Never blocks: for small control messages only. */
  send(message: Req): void;
  readonly messages: AsyncIterable<Res>;
  end(): void;
}

/** The half of a method a request needs. */
type Outgoing<Req> = Pick<Method<Req, never>, 'path' | 'requestSerialize'>;

/** 64 MiB: four lossless 2048² pictures. */
const MAX_RESPONSE_BYTES = 64 * 1024 * 1024;
/** Hundreds of round trips, TLS included. */
const CONNECT_TIMEOUT_MS = 10_000;
/** Doubles the rate of 1.5 MB answers against the default 64 KiB. */
const FLOW_CONTROL_WINDOW_BYTES = 4 * 1024 * 1024;

export class Channel {
  readonly #makeClient: () => Client;
  #made: Client | undefined;
  #closed = false;
  readonly #raw: RawLeg;
  readonly #clock: Clock;
  readonly #tls: boolean;

  /** `address`: "host:port" or "unix:/path". Connects on the first call. */
  constructor(
    readonly address: string,
    options: ChannelOptions,
  ) {
    const { clock, connectTimeoutMs = CONNECT_TIMEOUT_MS, keepaliveMs, tls, maxResponseBytes = MAX_RESPONSE_BYTES } = options;
    this.#clock = clock;
    this.#tls = tls !== undefined;
    const limits = { connectTimeoutMs, keepaliveMs, maxResponseBytes, windowBytes: FLOW_CONTROL_WINDOW_BYTES };
    this.#raw = new RawLeg(address, { clock, tls, ...limits });
    this.#makeClient = () =>
      new Client(address, channelCredentials(address, tls && { ...tls, clock, connectTimeoutMs }), {
        'grpc.max_receive_message_length': maxResponseBytes,
        'grpc.max_send_message_length': -1,
        'grpc-node.flow_control_window': FLOW_CONTROL_WINDOW_BYTES,
        'grpc.enable_retries': 0,
        'grpc.use_local_subchannel_pool': 1,
        // A peer that comes back is found within a second instead of grpc's two minutes.
        'grpc.initial_reconnect_backoff_ms': 100,
        'grpc.max_reconnect_backoff_ms': 1000,
        ...(keepaliveMs === undefined
          ? {}
          : {
              'grpc.keepalive_time_ms': keepaliveMs,
              'grpc.keepalive_timeout_ms': keepaliveMs,
              'grpc.keepalive_permit_without_calls': 1,
            }),
      });
  }

  /** Made for the first call: a third of a millisecond, and there may be a thousand channels at once. */
  get #client(): Client {
    this.#made ??= this.#makeClient();
    if (this.#closed) this.#made.close(); // a call that comes too late fails as on any closed channel
    return this.#made;
  }

  get connected(): boolean {
    return this.#made?.getChannel().getConnectivityState(false) === connectivityState.READY;
  }

  unary<Req, Res>(method: Method<Req, Res>, request: Req, options: CallOptions = {}): Promise<Answer<Res>> {
    return new Promise((resolve, reject) => {
      if (options.signal?.aborted) return reject(StatusError.from(options.signal.reason));
      let response: Res | undefined;
      const call = this.#client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        metadataOf(options.metadata),
        this.#wireOptions(options),
        (error, value) => {
          release();
          if (error) reject(options.signal?.aborted ? StatusError.from(options.signal.reason) : this.#statusOf(error));
          else response = value;
        },
      );
      const release = cancelOnAbort(call, options.signal);
      // The status event carries the trailers and comes after the callback.
      call.on('status', (status) => {
        if (status.code === 0 && response !== undefined) resolve({ response, trailers: textEntries(status.metadata) });
      });
    });
  }

  /** A raw call is about to be made: its connection is opened now. */
  prepareRaw(): void {
    this.#raw.prepare();
  }

  /** The answer as the bytes that came. */
  unaryRaw<Req>(method: Outgoing<Req>, request: Req, options: CallOptions = {}): Promise<Answer<Pieces>> {
    return this.#raw.unary(method.path, method.requestSerialize(request), options);
  }

  serverStream<Req, Res>(method: Method<Req, Res>, request: Req, options: CallOptions = {}): AsyncIterable<Res> {
    const call = this.#client.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      metadataOf(options.metadata),
      this.#wireOptions(options),
    );
    return readAll(call, {
      signal: options.signal,
      release: cancelOnAbort(call, options.signal),
      statusOf: (thrown) => this.#statusOf(thrown),
    });
  }

  /** Each message as the bytes that came. */
  serverStreamRaw<Req>(method: Outgoing<Req>, request: Req, options: CallOptions = {}): AsyncIterable<Pieces> {
    return this.#raw.stream(method.path, method.requestSerialize(request), options);
  }

  duplex<Req, Res>(method: Method<Req, Res>, options: CallOptions = {}): Duplex<Req, Res> {
    const call = this.#client.makeBidiStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      metadataOf(options.metadata),
      this.#wireOptions(options),
    );
    const release = cancelOnAbort(call, options.signal);
    return {
      // A write after the stream has failed has no one to tell; the reader learns of the failure.
      send: (message) => void (call.writable && call.write(message)),
      messages: readAll(call, { signal: options.signal, release, statusOf: (thrown) => this.#statusOf(thrown) }),
      end: () => call.end(),
    };
  }

  /** Resolves when connected; UNAVAILABLE/CONNECT_FAILED when that takes longer than `timeoutMs`. */
  waitReady(timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#client.waitForReady(Date.now() + timeoutMs, (error) =>
        error
          ? reject(
              new StatusError({
                code: Code.UNAVAILABLE,
                reason: Reason.CONNECT_FAILED,
                message: `no connection to ${this.address} within ${timeoutMs} ms`,
                cause: error,
              }),
            )
          : resolve(),
      );
    });
  }

  close(): void {
    this.#raw.close();
    this.#closed = true;
    this.#made?.close();
  }

  /** grpc-js passes on what OpenSSL says. */
  #statusOf(thrown: unknown): StatusError {
    const error = statusFromGrpc(thrown);
    if (error.reason !== Reason.CONNECT_FAILED || !error.message.startsWith('No connection established')) return error;
    const why = explainTlsFailure(error.message, this.#tls);
    if (why === undefined) return error;
    return new StatusError({ code: error.code, reason: error.reason, message: `no connection to ${this.address}: ${why}`, cause: error });
  }

  #wireOptions(options: CallOptions): { deadline?: number } {
    const { deadlineAt } = options;
    if (deadlineAt === undefined || !Number.isFinite(deadlineAt)) return {};
    return { deadline: Date.now() + (deadlineAt - this.#clock.now()) };
  }
}

function cancelOnAbort(call: { cancel(): void }, signal: AbortSignal | undefined): () => void {
  const onAbort = () => call.cancel();
  if (signal?.aborted) onAbort();
  else signal?.addEventListener('abort', onAbort, { once: true });
  return () => signal?.removeEventListener('abort', onAbort);
}

/** Leaving the loop early cancels the call. */
async function* readAll<Res>(
  call: AsyncIterable<Res> & { cancel(): void; on(event: 'error', listener: () => void): unknown },
  { signal, release, statusOf }: { signal: AbortSignal | undefined; release: () => void; statusOf: (thrown: unknown) => StatusError },
): AsyncGenerator<Res, void> {
  let finished = false;
  try {
    for await (const message of call) yield message;
    finished = true;
  } catch (thrown) {
    finished = true;
    throw signal?.aborted ? StatusError.from(signal.reason) : statusOf(thrown);
  } finally {
    release();
    if (!finished) {
      call.on('error', () => {}); // our own cancel comes back as an error nobody reads
      call.cancel();
    }
  }
}
