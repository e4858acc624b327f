/**
 * The server side of grpc-js: handlers are async functions, errors are StatusErrors, every call has
 * an AbortSignal, and a drain waits for calls before it touches the transport.
 *
 * Two things of grpc-js 1.14 shape this file. An async handler that throws would end the process, so
 * nothing of ours is called unguarded. And `tryShutdown` while calls run can drop them when a
 * client's keepalive is short (grpc-node #3068), so new calls are refused here, calls in flight are
 * awaited here, and only then the transport is told.
 */
import {
  Server as GrpcJsServer,
  type Metadata,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { type Clock, Code, type Emit, Reason, StatusError } from '#core';
import type { ServerTls } from '#tls';
import { serverCredentials } from './credentials.js';
import { cutWhenStuck } from './http2-stream.js';
import { shortenLongDeadlines } from './long-deadline.js';
import { metadataOf, textEntries } from './metadata.js';
import { type Call, decodeRequest, type HandlersOf, type Method, serializer, type Writer } from './method.js';
import './no-words.js';
import { Pieces } from './pieces.js';
import { toStatusObject } from './status.js';
import { writePieces } from './write-pieces.js';

/** One RPC ended, on either side of success. */
export interface CallEnded {
  readonly type: 'callEnded';
  readonly method: string;
  readonly code: Code;
  readonly reason: string;
  readonly durationMs: number;
  readonly peer: string;
  readonly notes: Readonly<Record<string, string | number>>;
  readonly error?: StatusError;
}

export interface ServerOptions {
  readonly clock: Clock;
  readonly emit: Emit<CallEnded>;
  /** Larger requests are refused with RESOURCE_EXHAUSTED. */
  readonly maxRequestBytes: number;
  /** A caller who takes nothing of its answer for this long is cut off with IDLE_READER. Absent: never. */
  readonly idleReaderMs?: number;
  /** Absent: plain. */
  readonly tls?: ServerTls | undefined;
}

export interface ServiceOptions {
  /** Long-lived streams (watches, attachments): not counted by a drain, ended by it. */
  readonly endless?: readonly string[];
  /** Answered even while draining (health). */
  readonly always?: boolean;
}

/** What the three kinds of grpc-js server calls have in common. */
interface AnyCall {
  readonly metadata: Metadata;
  getDeadline(): Date | number;
  getPeer(): string;
  on(event: 'cancelled' | 'error', listener: () => void): unknown;
}

interface Running {
  readonly abort: (reason: StatusError) => void;
  readonly endless: boolean;
}

/** A status that cannot leave because what comes before it is not taken is given this long. */
const CUT_MS = 1000;

export class Server {
  readonly #server: GrpcJsServer;
  readonly #running = new Set<Running>();
  #inFlight = 0;
  #draining = false;
  readonly #awaitingIdle: (() => void)[] = [];

  constructor(private readonly options: ServerOptions) {
    this.#server = new GrpcJsServer({
      'grpc.max_receive_message_length': options.maxRequestBytes,
      'grpc.max_send_message_length': -1,
      // Half-open connections are noticed and closed; gRPC keepalive guide values for a LAN.
      'grpc.keepalive_time_ms': 30_000,
      'grpc.keepalive_timeout_ms': 10_000,
    });
  }

  /** Calls in flight, endless streams aside. */
  get inFlight(): number {
    return this.#inFlight;
  }

  add<Service extends Record<string, object>>(service: Service, handlers: HandlersOf<Service>, options: ServiceOptions = {}): void {
    const definitions: Record<string, Method<Buffer, unknown>> = {};
    const implementation: UntypedServiceImplementation = {};
    for (const [name, entry] of Object.entries(service)) {
      const method = entry as Method<unknown, unknown>;
      // Requests are decoded by us, so that garbage is INVALID_ARGUMENT instead of INTERNAL.
      definitions[name] = {
        ...method,
        requestSerialize: (value) => value,
        requestDeserialize: (value) => value,
        responseSerialize: serializer(method.responseSerialize),
      };
      const endless = options.endless?.includes(name) ?? false;
      implementation[name] = this.#adapt(method, (handlers as Record<string, never>)[name] as never, {
        endless,
        always: options.always ?? false,
      });
    }
    this.#server.addService(definitions as never, implementation);
  }

  /** Binds `address` ("host:port", port 0 picks one, or "unix:/path") and returns the port. */
  listen(address: string): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.bindAsync(address, serverCredentials(this.options.tls), (error, port) => {
        if (error) return reject(error);
        shortenLongDeadlines(this.#server);
        resolve(port);
      });
    });
  }

  /** Refuses new calls, ends endless streams, resolves when no call is left. */
  async drain(): Promise<void> {
    this.#draining = true;
    for (const running of this.#running) if (running.endless) running.abort(drainingError());
    if (this.inFlight === 0) return;
    await new Promise<void>((resolve) => this.#awaitingIdle.push(resolve));
  }

  /** Aborts what is left with UNAVAILABLE, so that peers try elsewhere, then closes the transport. */
  async close(): Promise<void> {
    this.#draining = true;
    for (const running of this.#running) running.abort(drainingError());
    await new Promise<void>((resolve) => {
      // Aborted handlers need a moment to send their status; then what hangs is cut.
      const cancel = this.options.clock.schedule(500, () => {
        this.#server.forceShutdown();
        resolve();
      });
      this.#server.tryShutdown(() => {
        cancel();
        resolve();
      });
    });
  }

  #adapt(method: Method<unknown, unknown>, handler: never, options: { endless: boolean; always: boolean }) {
    if (!method.requestStream && !method.responseStream) {
      return (call: ServerUnaryCall<Buffer, unknown>, reply: sendUnaryData<unknown>) => {
        void this.#run(
          method,
          call,
          options,
          async (context) => {
            const request = decodeRequest(method, call.request);
            const response = await (handler as (c: Call<unknown>) => Promise<unknown>)({ ...context, request });
            const trailers = metadataOf(context.trailers);
            return () => {
              const written = response instanceof Pieces && writePieces(call, response);
              // grpc-js takes a status of OK without a message for what it is.
              if (written) reply({ code: Code.OK, details: 'OK', metadata: trailers });
              else reply(null, response as never, trailers);
            };
          },
          (error, trailers) => reply(toStatusObject(error, trailers)),
        );
      };
    }
    if (!method.requestStream) {
      return (call: ServerWritableStream<Buffer, unknown>) => {
        void this.#run(
          method,
          call,
          options,
          async (context, idle) => {
            const request = decodeRequest(method, call.request);
            await (handler as (c: Call<unknown>, w: Writer<unknown>) => Promise<void>)(
              { ...context, request },
              writerOf(call, context.signal, idle),
            );
            return () => call.end(metadataOf(context.trailers));
          },
          (error, trailers) => void call.emit('error', toStatusObject(error, trailers)),
        );
      };
    }
    return (call: ServerDuplexStream<Buffer, unknown>) => {
      void this.#run(
        method,
        call,
        options,
        async (context) => {
          const request = decodeAll(method, call, context.signal);
          await (handler as (c: Call<unknown>, w: Writer<unknown>) => Promise<void>)(
            { ...context, request },
            writerOf(call, context.signal, NEVER_IDLE),
          );
          return () => call.end(metadataOf(context.trailers));
        },
        (error, trailers) => void call.emit('error', toStatusObject(error, trailers)),
      );
    };
  }

  async #run(
    method: Method<unknown, unknown>,
    call: AnyCall,
    options: { endless: boolean; always: boolean },
    body: (context: Omit<Call<never>, 'request'>, idle: IdleWatch) => Promise<() => void>,
    fail: (error: StatusError, trailers: Record<string, string>) => void,
  ): Promise<void> {
    const { clock, idleReaderMs } = this.options;
    const startedAt = clock.now();
    const controller = new AbortController();
    const running: Running = { endless: options.endless, abort: (reason) => controller.abort(reason) };
    const context = {
      method: method.path,
      metadata: textEntries(call.metadata),
      deadlineAt: deadlineOf(call, this.options.clock),
      signal: controller.signal,
      peer: call.getPeer(),
      trailers: {} as Record<string, string>,
      notes: {} as Record<string, string | number>,
    };
    // 'cancelled' fires on every closed call, also after success; `settled` tells the difference.
    let settled = false;
    call.on('cancelled', () => {
      if (!settled) controller.abort(goneError(context.deadlineAt, this.options.clock));
    });
    // A stream error after the peer has left has no one to tell; without a listener it would end the process.
    call.on('error', () => {});
    const ended = (code: Code, reason: string, error?: StatusError) =>
      this.options.emit({
        type: 'callEnded',
        method: method.path,
        code,
        reason,
        durationMs: this.options.clock.now() - startedAt,
        peer: context.peer,
        notes: context.notes,
        ...(error ? { error } : {}),
      });
    if (this.#draining && !options.always) {
      settled = true;
      fail(drainingError(), {});
      return ended(Code.UNAVAILABLE, Reason.DRAINING);
    }
    this.#running.add(running);
    if (!running.endless) this.#inFlight++;
    try {
      const idle: IdleWatch = () =>
        idleReaderMs === undefined ? () => {} : clock.schedule(idleReaderMs, () => controller.abort(idleReaderError(idleReaderMs)));
      const succeed = await body(context, idle);
      settled = true;
      // First, because pieces are handed over at one go, and then the stream is not to be had any more.
      if (idleReaderMs !== undefined) cutWhenStuck(call, idleReaderMs);
      succeed();
      ended(Code.OK, 'OK');
    } catch (thrown) {
      settled = true;
      const error = controller.signal.aborted ? StatusError.from(controller.signal.reason) : StatusError.from(thrown);
      fail(error, context.trailers);
      if (error.reason === Reason.IDLE_READER) cutWhenStuck(call, CUT_MS);
      ended(error.code, error.reason, error);
    } finally {
      this.#running.delete(running);
      if (!running.endless) this.#inFlight--;
      if (this.inFlight === 0) for (const resolve of this.#awaitingIdle.splice(0)) resolve();
    }
  }
}

function drainingError(): StatusError {
  return new StatusError({ code: Code.UNAVAILABLE, reason: Reason.DRAINING, message: 'this server is stopping; call another' });
}

function idleReaderError(idleReaderMs: number): StatusError {
  return new StatusError({
    code: Code.DEADLINE_EXCEEDED,
    reason: Reason.IDLE_READER,
    message: `the caller took nothing of its answer for ${idleReaderMs} ms`,
  });
}

function goneError(deadlineAt: number, clock: Clock): StatusError {
  // The transport ends a call a moment before or after its deadline; both mean the deadline.
  return clock.now() >= deadlineAt - 20
    ? new StatusError({ code: Code.DEADLINE_EXCEEDED, reason: Reason.DEADLINE, message: "the caller's deadline passed" })
    : new StatusError({ code: Code.CANCELLED, reason: Reason.CANCELLED, message: 'the caller cancelled' });
}

function deadlineOf(call: AnyCall, clock: Clock): number {
  const deadline = call.getDeadline();
  const epochMs = deadline instanceof Date ? deadline.getTime() : deadline;
  return Number.isFinite(epochMs) ? clock.now() + (epochMs - Date.now()) : Number.POSITIVE_INFINITY;
}

/** Starts a wait for the reader; the function returned ends it. */
type IdleWatch = () => () => void;

const NEVER_IDLE: IdleWatch = () => () => {};

function writerOf(
  call: ServerWritableStream<Buffer, unknown> | ServerDuplexStream<Buffer, unknown>,
  signal: AbortSignal,
  idle: IdleWatch,
): Writer<unknown> {
  // One wait for all who write meanwhile: a slow reader costs no listener a message.
  let room: Promise<void> | undefined;
  const untilRoom = () =>
    new Promise<void>((resolve, reject) => {
      const taken = idle();
      const over = () => {
        room = undefined;
        taken();
        call.off('drain', onDrain);
        signal.removeEventListener('abort', onAbort);
      };
      const onAbort = () => {
        over();
        reject(signal.reason);
      };
      const onDrain = () => {
        over();
        resolve();
      };
      call.on('drain', onDrain);
      signal.addEventListener('abort', onAbort);
    });
  return {
    write(message) {
      if (signal.aborted) return Promise.reject(signal.reason);
      if (call.write(message)) return Promise.resolve();
      room ??= untilRoom();
      return room;
    },
  };
}

/** Incoming messages; ends when the peer has ended or the call is over. */
async function* decodeAll(method: Method<unknown, unknown>, call: ServerDuplexStream<Buffer, unknown>, signal: AbortSignal) {
  const onAbort = () => void call.destroy();
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    // The plain iterator destroys the stream when the peer half-closes, and our status would never leave.
    for await (const bytes of call.iterator({ destroyOnReturn: false })) yield decodeRequest(method, bytes as Buffer);
  } catch (thrown) {
    throw signal.aborted ? signal.reason : thrown;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
