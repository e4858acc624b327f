/**
 * One connection to the mesh and the manners of every call over it: a deadline that all attempts share,
 * who asks, which failures are worth a repeat, and errors in plain words.
 */
import { type Clock, type Random, StatusError } from '#core';
import { type CallOptions, Channel } from '#grpc';
import { systemClock, systemRandom } from '#runtime';
import { type ClientTlsPaths, clientTlsFromFiles } from '#tls';
import { retryDelayMs } from './retry.js';
import { inPlainWords } from './unanswered.js';

export interface ConnectOptions {
  /** host:port of a router or of a single node. */
  readonly address: string;
  /** How long a call may take when it does not say; default 60 s for pictures and batches, 10 s for the rest. */
  readonly timeoutMs?: number;
  /** Says who asks, where the mesh wants to know: what `dmesh token add` printed. */
  readonly token?: string | undefined;
  /** Speaks TLS: whom to trust, and what to show where the mesh asks for certificates. The files may be replaced at any time. */
  readonly tls?: ClientTlsPaths | undefined;
  /** Sent with every call. */
  readonly metadata?: Readonly<Record<string, string>>;
  readonly clock?: Clock;
  readonly random?: Random;
}

export interface CallSettings {
  /** Aborting it cancels the call; a picture in work frees its GPU within one step. */
  readonly signal?: AbortSignal | undefined;
  /** From now until the answer, retries included. */
  readonly timeoutMs?: number | undefined;
}

/** Deadlines are fixed when the caller calls: every attempt and every wait between them shares one. */
export type ClientCall = CallOptions & { readonly deadlineAt: number; readonly timeoutMs: number };

export interface RetryOptions {
  /** The call may be made again when it is not known whether it was carried out. */
  readonly repeatable?: boolean;
  /** Told before each wait. */
  readonly onRetry?: ((retry: { readonly attempt: number; readonly delayMs: number; readonly reason: string }) => void) | undefined;
}

export const PICTURE_TIMEOUT_MS = 60_000;
export const OTHER_TIMEOUT_MS = 10_000;

export class Caller {
  readonly clock: Clock;
  readonly random: Random;
  readonly channel: Channel;
  readonly #timeoutMs: number | undefined;
  readonly #metadata: Readonly<Record<string, string>>;
  /** The mesh has answered before; when it is away now, it is expected back. */
  #known = false;

  /** Throws a RangeError when the files named in `tls` cannot be used. */
  constructor(options: ConnectOptions) {
    this.clock = options.clock ?? systemClock;
    this.random = options.random ?? systemRandom;
    this.#timeoutMs = options.timeoutMs;
    this.#metadata = { ...options.metadata, ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }) };
    const tls = options.tls && clientTlsFromFiles(options.tls);
    this.channel = new Channel(options.address, { clock: this.clock, keepaliveMs: 30_000, tls });
  }

  call(options: CallSettings, defaultTimeoutMs: number): ClientCall {
    const timeoutMs = options.timeoutMs ?? this.#timeoutMs ?? defaultTimeoutMs;
    return {
      timeoutMs,
      deadlineAt: this.clock.now() + timeoutMs,
      ...(options.signal ? { signal: options.signal } : {}),
      metadata: this.#metadata,
    };
  }

  async withRetries<T>(call: ClientCall, send: () => Promise<T>, options: RetryOptions = {}): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        const answer = await send();
        this.answered();
        return answer;
      } catch (thrown) {
        await this.waitToRepeat(thrown, attempt, call, options);
      }
    }
  }

  /** The mesh is there. */
  answered(): void {
    this.#known = true;
  }

  /** Resolves when the call may be sent once more; throws the error, in plain words, when it may not. */
  async waitToRepeat(failed: unknown, attempt: number, call: ClientCall, options: RetryOptions = {}): Promise<void> {
    if (failed instanceof ListenerFailed) throw failed.cause;
    const error = this.plain(failed, call);
    const { repeatable = false, onRetry } = options;
    const delayMs = retryDelayMs(error, { attempt, random: this.random, known: this.#known, repeatable });
    if (delayMs === undefined || this.clock.now() + delayMs >= call.deadlineAt) throw error;
    onRetry?.({ attempt: attempt + 1, delayMs, reason: error.reason });
    await this.clock.sleep(delayMs, call.signal).catch((reason) => Promise.reject(StatusError.from(reason)));
  }

  plain(thrown: unknown, { timeoutMs }: ClientCall): StatusError {
    return inPlainWords(StatusError.from(thrown), { address: this.channel.address, timeoutMs });
  }
}

/** The caller's own code failed, not the mesh: its error is no status of a call. */
class ListenerFailed extends Error {
  override readonly name = 'ListenerFailed';
}

/** What the listener throws ends the call and is what the caller gets. */
export function guarded<Event>(listener: (event: Event) => void): (event: Event) => void {
  return (event) => {
    try {
      listener(event);
    } catch (cause) {
      throw new ListenerFailed('a listener threw', { cause });
    }
  };
}
