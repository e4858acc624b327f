/**
 * Many records that the whole mesh shares and that outlive its processes: one NATS key-value bucket, each
 * key changed only by who has seen its newest revision (compare and set), and the whole of it followed
 * live. For what must not be lost, such as jobs; for one small setting see kept-value.ts.
 *
 *   waiting ── NATS is there, all records told ──► following ── connection lost ──► waiting
 *      └── no JetStream, too old, or it refuses ──► unavailable ── tried again every 2 s ──► following
 *
 * Every new connection tells what changed since the last one: new and changed records first, then, once
 * all that is there has been seen, those that are gone; then it is `following`. A store that was lost or
 * replaced is told in the same way, though its revisions begin anew.
 *
 * Nothing is kept for later: while NATS is away every call fails at once. A write whose confirmation did
 * not come fails with UNAVAILABLE too, and may have happened: read, or write again with the same
 * expectation, which then is CHANGED_MEANWHILE.
 *
 * A removed key leaves a marker that tells everybody who follows; it goes by itself after an hour (a
 * time to live for each message, which NATS has since 2.11). Who was cut off for longer connects anew
 * and finds the key gone.
 */
import {
  AckPolicy,
  consumerOpts,
  DeliverPolicy,
  headers,
  type JetStreamClient,
  type JetStreamManager,
  type JetStreamSubscription,
  type JsMsg,
  type NatsConnection,
  NatsError,
  type StreamInfo,
} from 'nats';
import { type Clock, Code, Reason, StatusError } from '#core';
import type { Bus } from './bus.js';
import { ApiError, causeOf, changedMeanwhile, isApiError, storeAway, storeFull, storeUnavailable } from './jetstream.js';
import { type BucketSettings, prepareBucket, streamOf, subjectOf } from './kept-bucket.js';
import type { KeptState } from './kept-value.js';
import { whileConnected } from './while-connected.js';

export interface KeptRecordsOptions {
  readonly bus: Pick<Bus, 'attach'>;
  readonly clock: Clock;
  readonly settings: BucketSettings;
  /** A record that is new or has changed; must not throw. Our own writes are told before they resolve. */
  readonly onRecord: (record: KeptRecord) => void;
  /** Must not throw. */
  readonly onRemoved: (key: string) => void;
  /** `following`: all that is there has been told, and every change will be. */
  readonly onState: (state: KeptState) => void;
}

export interface KeptRecord {
  readonly key: string;
  readonly data: Uint8Array;
  /** Rises with every change of any record of the bucket. */
  readonly revision: number;
}

/** The bucket as one connection sees it. */
interface Store {
  readonly connection: NatsConnection;
  readonly js: JetStreamClient;
  readonly jsm: JetStreamManager;
  /** When it was looked at, before it was followed. */
  readonly info: StreamInfo;
  /** Keys seen, until all that is there has been told. */
  seen: Set<string> | undefined;
  /** The newest revision that the following has passed. */
  position: number;
  /** Looks at the bucket anew. */
  refollow: () => void;
}

const TIMEOUT_MS = 2000;
const RETRY_MS = 2000;
/** How often a replay that has fallen silent is asked whether it is complete. */
const REPLAY_CHECK_MS = 500;
const MARKER_LIFE = '1h';
const OPERATION = 'KV-Operation';

export class KeptRecords {
  readonly #options: KeptRecordsOptions;
  readonly #stream: string;
  #state: KeptState = { kind: 'waiting' };
  #store: Store | undefined;
  /** Of every record told, by key. */
  readonly #revisions = new Map<string, number>();
  /** Of the store followed last: when it was made, and its newest revision known. */
  #createdAt = '';
  #newest = 0;
  #detach = () => {};

  constructor(options: KeptRecordsOptions) {
    this.#options = options;
    this.#stream = streamOf(options.settings.bucket);
  }

  get state(): KeptState {
    return this.#state;
  }

  start(): void {
    this.#detach = whileConnected(this.#options.bus, (connection, signal) => this.#run(connection, signal));
  }

  stop(): void {
    this.#detach();
  }

  /** The newest of a key; undefined when there is none. Throws as `replace`. */
  async read(key: string): Promise<KeptRecord | undefined> {
    const newest = await this.#newestOf(key);
    return newest?.removed === false ? { key, data: newest.data, revision: newest.revision } : undefined;
  }

  /** Resolves with the revision. Throws ABORTED/CHANGED_MEANWHILE when the key is there, else as `replace`. */
  async create(key: string, data: Uint8Array): Promise<number> {
    try {
      return await this.#put(key, data, 0);
    } catch (thrown) {
      if (!isChangedMeanwhile(thrown)) throw thrown;
      const newest = await this.#newestOf(key); // perhaps only the marker of one that was removed
      if (newest?.removed !== true) throw thrown;
      return this.#put(key, data, newest.revision);
    }
  }

  /**
   * Resolves with the new revision. Throws ABORTED/CHANGED_MEANWHILE when the newest is not `expected`,
   * UNAVAILABLE while NATS is away or when it did not confirm, RESOURCE_EXHAUSTED/STORE_FULL when it has
   * no room, FAILED_PRECONDITION/STORE_UNAVAILABLE with what else it refuses.
   */
  async replace(key: string, data: Uint8Array, expected: number): Promise<number> {
    return this.#put(key, data, expected);
  }

  /** Throws as `replace`. */
  async remove(key: string, expected: number): Promise<void> {
    const marker = headers();
    marker.set(OPERATION, 'PURGE');
    marker.set('Nats-Rollup', 'sub');
    marker.set('Nats-TTL', MARKER_LIFE);
    await this.#write(key, new Uint8Array(), expected, marker);
  }

  async #put(key: string, data: Uint8Array, expected: number): Promise<number> {
    const revision = await this.#write(key, data, expected, headers());
    // What the following has passed, it has told, or what came after it.
    if (this.#store && revision > this.#store.position) this.#tell({ key, data, revision }, this.#store);
    return revision;
  }

  async #write(key: string, data: Uint8Array, expected: number, marks: ReturnType<typeof headers>): Promise<number> {
    const store = this.#requireStore();
    const expect = { lastSubjectSequence: expected, streamName: this.#stream };
    try {
      const { seq } = await store.js.publish(subjectOf(this.#options.settings.bucket, key), data, { headers: marks, expect });
      return seq;
    } catch (reason) {
      if (isApiError(reason, ApiError.WRONG_LAST_SEQUENCE)) throw changedMeanwhile(expected, reason);
      throw this.#faultOf(reason, store);
    }
  }

  /** Asks the leader of the bucket, since another of its servers may lag behind. */
  async #newestOf(key: string): Promise<{ removed: boolean; data: Uint8Array; revision: number } | undefined> {
    const store = this.#requireStore();
    const known = this.#revisions.get(key);
    try {
      const message = await store.jsm.streams.getMessage(this.#stream, { last_by_subj: subjectOf(this.#options.settings.bucket, key) });
      return { removed: message.header.get(OPERATION) !== '', data: message.data, revision: message.seq };
    } catch (reason) {
      if (isApiError(reason, ApiError.NO_MESSAGE)) {
        this.#tellMissing(key, known);
        return undefined;
      }
      throw this.#faultOf(reason, store);
    }
  }

  #requireStore(): Store {
    const store = this.#store;
    if (store && !store.connection.isClosed()) return store;
    throw this.#state.kind === 'unavailable' ? storeUnavailable(this.#state.cause) : storeAway();
  }

  #faultOf(reason: unknown, store: Store): StatusError {
    if (store.connection.isClosed()) return storeAway(reason);
    if (!(reason instanceof NatsError)) return storeUnavailable(causeOf(reason), reason);
    if (isApiError(reason, ApiError.MESSAGE_TOO_LARGE) || reason.code === 'MAX_PAYLOAD_EXCEEDED') return tooLarge(reason);
    if (isApiError(reason, ApiError.STORE_FAILED) || isApiError(reason, ApiError.NO_RESOURCES)) return storeFull(reason);
    if (reason.api_error && reason.api_error.code !== 503) return storeUnavailable(causeOf(reason), reason);
    if (reason.code === '503' && !reason.api_error) store.refollow(); // nobody listens there: without a leader for now, or gone
    return notConfirmed(reason);
  }

  async #run(connection: NatsConnection, signal: AbortSignal): Promise<void> {
    const { clock, settings } = this.#options;
    while (!signal.aborted) {
      try {
        const js = connection.jetstream({ timeout: TIMEOUT_MS });
        const jsm = await connection.jetstreamManager({ timeout: TIMEOUT_MS, checkAPI: false });
        const info = await prepareBucket(connection, jsm, settings);
        if (signal.aborted) return;
        this.#meet(info);
        const store: Store = { connection, js, jsm, info, seen: new Set(), position: 0, refollow: () => {} };
        this.#store = store;
        await this.#follow(store, signal);
        this.#leave(connection, { kind: 'waiting' });
      } catch (reason) {
        this.#leave(connection, signal.aborted ? { kind: 'waiting' } : { kind: 'unavailable', cause: causeOf(reason) });
      }
      await clock.sleep(RETRY_MS, signal).catch(() => {}); // ended: the loop sees it
    }
  }

  #leave(connection: NatsConnection, state: KeptState): void {
    if (this.#store && this.#store.connection !== connection) return; // another has begun
    this.#store = undefined;
    this.#become(state);
  }

  /** In another store than before no revision means what it did. */
  #meet({ created, state }: StreamInfo): void {
    const another = String(created) !== this.#createdAt || state.last_seq < this.#newest;
    if (another) for (const key of this.#revisions.keys()) this.#revisions.set(key, 0);
    this.#createdAt = String(created);
    this.#newest = state.last_seq;
  }

  /** Resolves when `signal` aborts or the bucket is to be looked at anew; rejects when it cannot be followed. */
  async #follow(store: Store, signal: AbortSignal): Promise<void> {
    const ended = new AbortController();
    const end = () => ended.abort();
    signal.addEventListener('abort', end, { once: true });
    store.refollow = end;
    let failure: unknown;
    const options = consumerOpts({ deliver_policy: DeliverPolicy.LastPerSubject, ack_policy: AckPolicy.None })
      .bindStream(this.#stream)
      .orderedConsumer()
      .callback((error, message) => {
        if (ended.signal.aborted) return;
        if (message && !error) return this.#take(message, store);
        failure = error;
        end();
      });
    const subscription = await store.js.subscribe(subjectOf(this.#options.settings.bucket, '>'), options);
    try {
      if (store.info.state.messages === 0) this.#complete(store);
      await this.#completeReplay(store, subscription, ended.signal);
      if (!ended.signal.aborted) await new Promise((resolve) => ended.signal.addEventListener('abort', resolve, { once: true }));
    } finally {
      signal.removeEventListener('abort', end);
      subscription.unsubscribe();
    }
    if (failure) throw failure;
  }

  /** The last message tells; but it may have gone (a marker, at the end of its life) while it was waited for. */
  async #completeReplay(store: Store, subscription: JetStreamSubscription, signal: AbortSignal): Promise<void> {
    while (store.seen && !signal.aborted) {
      await this.#options.clock.sleep(REPLAY_CHECK_MS, signal).catch(() => {}); // ended: the loop sees it
      if (!store.seen || signal.aborted) return;
      const { num_pending: pendingCount, delivered } = await subscription.consumerInfo();
      if (pendingCount === 0 && store.position >= delivered.stream_seq) this.#complete(store);
    }
  }

  #take(message: JsMsg, store: Store): void {
    const key = message.subject.slice(subjectOf(this.#options.settings.bucket, '').length);
    const revision = message.seq;
    store.position = revision;
    if (message.headers?.get(OPERATION)) this.#tellRemoved(key, revision);
    else this.#tell({ key, data: message.data, revision }, store);
    // Not at the newest revision there was: a record written since has moved behind that, and is still to come.
    if (store.seen && message.info.pending === 0) this.#complete(store);
  }

  /** In order: what we wrote ourselves may be newer than what the following tells next. */
  #tell(record: KeptRecord, store: Store): void {
    const { key, revision } = record;
    store.seen?.add(key);
    this.#newest = Math.max(this.#newest, revision);
    if (revision <= (this.#revisions.get(key) ?? 0)) return;
    this.#revisions.set(key, revision);
    this.#options.onRecord(record);
  }

  #tellRemoved(key: string, revision: number): void {
    this.#newest = Math.max(this.#newest, revision);
    const known = this.#revisions.get(key);
    if (known === undefined || revision <= known) return;
    this.#revisions.delete(key);
    this.#options.onRemoved(key);
  }

  /** Gone without a marker, as after a purge of the stream, of which nobody who follows hears. `known`: before it was asked for. */
  #tellMissing(key: string, known: number | undefined): void {
    if (known === undefined || this.#revisions.get(key) !== known) return;
    this.#revisions.delete(key);
    this.#options.onRemoved(key);
  }

  /** All that is there has been told; what was known and is not there any more was removed meanwhile. */
  #complete(store: Store): void {
    const { seen } = store;
    if (!seen) return;
    store.seen = undefined;
    for (const key of this.#revisions.keys()) {
      if (seen.has(key)) continue;
      this.#revisions.delete(key);
      this.#options.onRemoved(key);
    }
    this.#become({ kind: 'following' });
  }

  #become(state: KeptState): void {
    if (JSON.stringify(state) === JSON.stringify(this.#state)) return;
    this.#state = state;
    this.#options.onState(state);
  }
}

function isChangedMeanwhile(thrown: unknown): boolean {
  return thrown instanceof StatusError && thrown.reason === Reason.CHANGED_MEANWHILE;
}

function notConfirmed(cause: unknown): StatusError {
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.CONNECTION_LOST,
    message: 'NATS did not confirm; it may have been written: read again',
    cause,
  });
}

function tooLarge(cause: unknown): StatusError {
  return new StatusError({
    code: Code.RESOURCE_EXHAUSTED,
    reason: Reason.MESSAGE_TOO_LARGE,
    message: 'more than NATS takes in one record',
    cause,
  });
}
