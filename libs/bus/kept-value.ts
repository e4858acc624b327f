/**
 * One small value that the whole mesh shares and that outlives its processes: kept in a NATS key-value
 * bucket, followed live, changed only by who has seen the newest (compare and set). For settings that
 * people change now and then; load and liveness travel in beats.
 *
 *   waiting ── NATS is there ──► following ── connection lost ──► waiting
 *      └── no JetStream, or it refuses ──► unavailable ── tried again every 5 s ──► following
 *
 * The last value known holds in every state. A bucket that comes back without any trace of the key is a
 * lost store, not an order to forget: that is told as revision 0 without a value.
 */
import type { KV, NatsConnection, QueuedIterator } from 'nats';
import type { Clock } from '#core';
import type { Bus } from './bus.js';
import { ApiError, causeOf, changedMeanwhile, isApiError, storeUnavailable } from './jetstream.js';
import { busAway } from './status-from-nats.js';
import { whileConnected } from './while-connected.js';

export type KeptState =
  | { readonly kind: 'waiting' }
  | { readonly kind: 'following' }
  /** `cause` says what to switch on, or what NATS said. */
  | { readonly kind: 'unavailable'; readonly cause: string };

export interface KeptValueOptions {
  readonly bus: Bus;
  readonly clock: Clock;
  /** Created when it is not there; one made before, such as with more replicas, is used as it is. */
  readonly bucket: string;
  readonly key: string;
  readonly description: string;
  /** The newest value; undefined when there is none. Revisions rise, but a new store begins anew. */
  readonly onValue: (data: Uint8Array | undefined, revision: number) => void;
  readonly onState: (state: KeptState) => void;
}

const HISTORY_COUNT = 16;
const TIMEOUT_MS = 2000;
const RETRY_MS = 5000;

export class KeptValue {
  readonly #options: KeptValueOptions;
  #state: KeptState = { kind: 'waiting' };
  #kv: KV | undefined;
  #watch: QueuedIterator<unknown> | undefined;
  /** Of the value last told, on this connection. */
  #revision = -1;
  #detach = () => {};

  constructor(options: KeptValueOptions) {
    this.#options = options;
  }

  get state(): KeptState {
    return this.#state;
  }

  start(): void {
    this.#detach = whileConnected(this.#options.bus, (connection, signal) => this.#follow(connection, signal));
  }

  stop(): void {
    this.#detach();
    this.#watch?.stop();
  }

  /**
   * Resolves with the new revision; it has been told to `onValue` by then. Throws ABORTED when the newest
   * revision is another than `expected`, FAILED_PRECONDITION without JetStream, UNAVAILABLE without NATS.
   */
  async replace(data: Uint8Array, expected: number): Promise<number> {
    const kv = this.#kv;
    if (!kv) throw this.#state.kind === 'unavailable' ? storeUnavailable(this.#state.cause) : busAway();
    const { key } = this.#options;
    try {
      const revision = expected === 0 ? await kv.create(key, data) : await kv.update(key, data, expected);
      this.#tell(data, revision);
      return revision;
    } catch (reason) {
      if (isApiError(reason, ApiError.WRONG_LAST_SEQUENCE)) throw changedMeanwhile(expected, reason);
      this.#watch?.stop(); // the store may be gone under us: look again
      if (!this.#options.bus.connected) throw busAway(reason);
      throw storeUnavailable(causeOf(reason), reason);
    }
  }

  async #follow(connection: NatsConnection, signal: AbortSignal): Promise<void> {
    const { bucket, clock, description } = this.#options;
    while (!signal.aborted) {
      try {
        const store = connection.jetstream({ timeout: TIMEOUT_MS });
        const kv = await store.views.kv(bucket, { history: HISTORY_COUNT, description, timeout: TIMEOUT_MS });
        await this.#watchUntilEnd(kv);
        this.#become({ kind: 'waiting' });
      } catch (reason) {
        this.#become(connection.isClosed() ? { kind: 'waiting' } : { kind: 'unavailable', cause: causeOf(reason) });
      }
      this.#kv = undefined;
      await clock.sleep(RETRY_MS, signal).catch(() => {}); // ended: the loop sees it
    }
  }

  async #watchUntilEnd(kv: KV): Promise<void> {
    this.#revision = -1;
    let found = false;
    const initializedFn = () => {
      if (!found) this.#tell(undefined, 0);
    };
    const watch = await kv.watch({ key: this.#options.key, initializedFn });
    this.#watch = watch;
    this.#kv = kv;
    this.#become({ kind: 'following' });
    for await (const entry of watch) {
      found = true;
      this.#tell(entry.operation === 'PUT' ? entry.value : undefined, entry.revision);
    }
  }

  /** In order: what we wrote ourselves may be older than what the watch tells next, never newer. */
  #tell(data: Uint8Array | undefined, revision: number): void {
    if (revision <= this.#revision) return;
    this.#revision = revision;
    this.#options.onValue(data, revision);
  }

  #become(state: KeptState): void {
    if (JSON.stringify(state) === JSON.stringify(this.#state)) return;
    this.#state = state;
    this.#options.onState(state);
  }
}
