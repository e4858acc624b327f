/**
 * Which replica of the jobs service takes this call? Any that lives: they are all the same. A replica that
 * could not be reached has not seen the call, so the next is asked; one whose connection broke, or whose own to NATS
 * did, may have done what it was asked, so the next is asked only where doing it twice is doing it once.
 */
import type { Replica } from '#bus';
import { type Clock, Code, type Emit, type Random, Reason, StatusError } from '#core';
import { type Call, type CallOptions, Channel, type ChannelOptions } from '#grpc';
import type { RouterEvent } from './events.js';

export interface JobsReplicasOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly emit: Emit<RouterEvent>;
  /** Who lives; an empty list of a directory that has not settled may only not have heard yet. */
  readonly directory: {
    live(): readonly Replica[];
    readonly settledAt: number | undefined;
    readonly whenSettled: Promise<void>;
  };
  readonly link: Omit<ChannelOptions, 'clock' | 'keepaliveMs'>;
}

/** A call that is passed on: what it says besides its request. */
export type PassedCall = Pick<Call<Buffer>, 'metadata' | 'deadlineAt' | 'signal' | 'notes' | 'method'>;

/**
 * Not as short as for nodes: a replica that is busy for a second, with a batch of a thousand jobs, would lose all its
 * calls, and the next replica would get them on top. One that froze holds its calls up for twice this, which is less
 * than the 10 s that a client gives them: they can still be asked of another. New calls do not wait for it, since the
 * directory drops who is silent for 3.5 s.
 */
const KEEPALIVE_MS = 4000;
/** How long a router that has just started looks for replicas. */
const SETTLE_WAIT_MS = 2000;
/** Who asks and what it belongs to; everything else a caller sends is for this router. */
const PASSED_METADATA = ['authorization', 'x-request-id', 'traceparent', 'tracestate'] as const;
/** The replica has not looked at the call. */
const NOT_BEGUN: ReadonlySet<string> = new Set([Reason.CONNECT_FAILED, Reason.DRAINING]);

export class JobsReplicas {
  readonly #options: JobsReplicasOptions;
  readonly #channels = new Map<string, Channel>();

  constructor(options: JobsReplicasOptions) {
    this.#options = options;
  }

  /**
   * `ask` is tried on one replica after the other while that can do no harm. Throws what the last one answered, or
   * UNAVAILABLE/NO_JOBS_SERVICE when none did.
   */
  async passOn<T>(
    call: PassedCall,
    { mayRepeat, ask }: { mayRepeat: () => boolean; ask: (channel: Channel, options: CallOptions) => Promise<T> },
  ): Promise<T> {
    const { emit, random } = this.#options;
    const options = { metadata: passedMetadata(call.metadata), deadlineAt: call.deadlineAt, signal: call.signal };
    const tried = new Set<string>();
    /** Of one that may have seen the call. */
    let last: StatusError | undefined;
    let failed: { readonly replicaId: string; readonly error: StatusError } | undefined;
    for (;;) {
      const untried = (await this.#live(call.signal)).filter(({ address }) => !tried.has(address));
      const willing = untried.filter(({ draining }) => !draining);
      const replica = willing[Math.floor(random() * willing.length)] ?? untried[0];
      if (!replica) throw last ?? noJobsService(tried.size);
      if (failed) emit({ type: 'jobsReplicaFailed', method: call.method, ...failed });
      tried.add(replica.address);
      call.notes.jobs_replica = replica.id;
      try {
        return await ask(this.#channel(replica.address), options);
      } catch (thrown) {
        call.signal.throwIfAborted();
        const error = StatusError.from(thrown);
        if (!NOT_BEGUN.has(error.reason)) {
          if (!mayHelp(error, last) || !mayRepeat()) throw error;
          last = error;
        }
        failed = { replicaId: replica.id, error };
      }
    }
  }

  /** Lets go of replicas that are gone; calls in flight end first. */
  prune(): void {
    const addresses = new Set(this.#options.directory.live().map(({ address }) => address));
    for (const [address, channel] of this.#channels) {
      if (addresses.has(address)) continue;
      this.#channels.delete(address);
      channel.close();
    }
  }

  close(): void {
    for (const channel of this.#channels.values()) channel.close();
    this.#channels.clear();
  }

  async #live(signal: AbortSignal): Promise<readonly Replica[]> {
    const { clock, directory } = this.#options;
    if (directory.live().length > 0 || directory.settledAt !== undefined) return directory.live();
    const settled = new AbortController();
    void directory.whenSettled.then(() => settled.abort());
    await clock.sleep(SETTLE_WAIT_MS, AbortSignal.any([signal, settled.signal])).catch(() => signal.throwIfAborted());
    return directory.live();
  }

  #channel(address: string): Channel {
    const { clock, link } = this.#options;
    const channel = this.#channels.get(address) ?? new Channel(address, { ...link, clock, keepaliveMs: KEEPALIVE_MS });
    this.#channels.set(address, channel);
    return channel;
  }
}

/**
 * Whether another may do better: the connection broke, or this one does not see NATS or the pictures, or is slow. When
 * the second one says so too, it is so for all of them.
 */
function mayHelp({ code, reason }: StatusError, last: StatusError | undefined): boolean {
  if (reason === Reason.CONNECTION_LOST) return true;
  return reason === Reason.STORE_UNAVAILABLE && code === Code.UNAVAILABLE && last?.reason !== reason;
}

function passedMetadata(metadata: Readonly<Record<string, string>>): Record<string, string> {
  const passed: Record<string, string> = {};
  for (const key of PASSED_METADATA) {
    const value = metadata[key];
    if (value !== undefined) passed[key] = value;
  }
  return passed;
}

function noJobsService(triedCount: number): StatusError {
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.NO_JOBS_SERVICE,
    message:
      triedCount === 0
        ? 'expected a replica of the jobs service in this mesh, none has announced itself'
        : `expected a replica of the jobs service that can be reached, ${triedCount} could not`,
    retryDelayMs: 1000,
  });
}
