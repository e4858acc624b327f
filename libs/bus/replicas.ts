/**
 * Which routers, and which replicas of the jobs service, live? They announce themselves every second, and
 * each service follows those it calls or shares work with. Nobody among them has a state worth telling but
 * an address, so this is a smaller thing than the membership of nodes: a replica is there, or it is not.
 *
 * Silence counts only while we can hear: not without a link, and not while nothing at all comes in, our own
 * roll call included (NATS is stalled then, or this process was). After such a time everybody gets a grace.
 */
import type { Clock, Emit, Random } from '#core';
import type { Bus, BusMessage } from './bus.js';
import type { BusEvent } from './events.js';
import { Heartbeat } from './heartbeat.js';
import { compareIncarnations } from './incarnation.js';
import { type Parsed, parseReplica, parseReplicaLeave } from './parse-beat.js';
import { allReplicaBeats, allReplicaLeaves, replicaBeatSubject, replicaLeaveSubject, replicaRollCall } from './subjects.js';

export type ReplicaService = 'router' | 'jobs';

export interface Replica {
  /** 1 to 64 of A-Z a-z 0-9 _ -; unique among the replicas of its service. */
  readonly id: string;
  /** Which life of it; see makeIncarnation(). */
  readonly incarnation: string;
  /** host:port of its gRPC server, as others call it. */
  readonly address: string;
  /** It leaves: it finishes what it has begun, and takes nothing new. */
  readonly draining?: boolean | undefined;
}

export interface ReplicaAnnouncerOptions {
  readonly bus: Bus;
  readonly clock: Clock;
  readonly random: Random;
  /** Asked at each beat; service, id and incarnation never change. */
  readonly read: () => Replica & { readonly service: ReplicaService };
}

export class ReplicaAnnouncer extends Heartbeat {
  constructor({ read, ...options }: ReplicaAnnouncerOptions) {
    super({
      ...options,
      rollCall: replicaRollCall(read().service),
      beat: () => {
        const { service, ...replica } = read();
        return { subject: replicaBeatSubject(service, replica.id), payload: JSON.stringify(replica) };
      },
      leave: () => {
        const { service, id, incarnation } = read();
        return { subject: replicaLeaveSubject(service, id), payload: JSON.stringify({ id, incarnation }) };
      },
    });
  }
}

/** They beat every second, up to a tenth late: three missed. */
const GONE_AFTER_MS = 3500;
/** Everybody has reconnected by then: a try takes at most 1.5 s of waiting, and beats follow at once. */
const GRACE_MS = 5000;
/** Who lives answers a roll call within milliseconds; on a busy machine, within this. */
const SETTLE_MS = 1000;
/** Nothing heard for this long: the roll is called, to hear at least that. */
const QUIET_MS = 1000;
/** Not even our own roll call comes back. */
const DEAF_MS = 2500;
const SWEEP_MS = 250;

export type ReplicaEvent =
  | { readonly type: 'replicaJoined'; readonly service: ReplicaService; readonly replica: Replica }
  /** Another life of a known id. */
  | { readonly type: 'replicaRestarted'; readonly service: ReplicaService; readonly replica: Replica; readonly previousIncarnation: string }
  /** It said goodbye, or was silent for too long. */
  | { readonly type: 'replicaGone'; readonly service: ReplicaService; readonly replica: Replica; readonly cause: 'left' | 'silent' };

export interface ReplicaDirectoryOptions {
  readonly bus: Bus;
  readonly clock: Clock;
  /** Whom to follow. */
  readonly service: ReplicaService;
  readonly emit: Emit<ReplicaEvent | BusEvent>;
  /** After each change of live(). */
  readonly onChange?: () => void;
}

interface Entry {
  replica: Replica;
  heardAt: number;
}

export class ReplicaDirectory {
  readonly #options: ReplicaDirectoryOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #undo: (() => void)[] = [];
  #live: readonly Replica[] = [];
  /** When anything came in last; undefined without a link. */
  #heardAt: number | undefined;
  #calledAt = 0;
  /** The beginning of the time in which we missed nothing. */
  #hearingSince = 0;
  #settledAt: number | undefined;
  #cancelSweep = () => {};
  #noteSettled = () => {};
  /** Resolves at `settledAt`; never, when NATS never comes. */
  readonly whenSettled: Promise<void>;

  constructor(options: ReplicaDirectoryOptions) {
    this.#options = options;
    this.whenSettled = new Promise((resolve) => {
      this.#noteSettled = resolve;
    });
  }

  /** Sorted by id; the same list until something changes. A replica that announces itself is in its own. */
  live(): readonly Replica[] {
    return this.#live;
  }

  /** Since when we have heard for long enough to know everybody, clock milliseconds; undefined before. Stays, whatever NATS does. */
  get settledAt(): number | undefined {
    return this.#settledAt;
  }

  /** Does not wait for NATS: the roll is called as soon as it is there. */
  start(): void {
    const { bus, service } = this.#options;
    // Subscribed before the link is followed: the answers to the roll call must not be missed.
    this.#undo.push(
      bus.subscribe(allReplicaBeats(service), (message) => this.#take(message, parseReplica, replicaBeatSubject, (it) => this.#accept(it))),
      bus.subscribe(allReplicaLeaves(service), (message) =>
        this.#take(message, parseReplicaLeave, replicaLeaveSubject, (it) => this.#leave(it)),
      ),
      bus.subscribe(replicaRollCall(service), () => this.#hear()),
      bus.onLink((connected) => this.#setConnected(connected)),
    );
    this.#sweepLater();
  }

  stop(): void {
    for (const undo of this.#undo.splice(0)) undo();
    this.#cancelSweep();
  }

  #setConnected(connected: boolean): void {
    this.#heardAt = undefined;
    if (!connected) return;
    const now = this.#options.clock.now();
    this.#heardAt = now;
    this.#hearingSince = now;
    this.#callRoll(now);
  }

  #callRoll(now: number): void {
    const { bus, service } = this.#options;
    this.#calledAt = now;
    bus.publish(replicaRollCall(service), '');
  }

  /** Something came in: NATS delivers, and we listen. */
  #hear(): void {
    const now = this.#options.clock.now();
    if (this.#isDeaf(now)) this.#hearingSince = now;
    this.#heardAt = now;
  }

  #isDeaf(now: number): boolean {
    return this.#heardAt === undefined || now - this.#heardAt > DEAF_MS;
  }

  #take<T extends { readonly id: string }>(
    message: BusMessage,
    parse: (bytes: Uint8Array) => Parsed<T>,
    subjectOf: (service: ReplicaService, id: string) => string,
    accept: (value: T) => void,
  ): void {
    this.#hear();
    const { service, emit } = this.#options;
    const parsed = parse(message.data);
    // NATS permissions may bind a replica to its own subject; an announcement in somebody else's name is a lie.
    if (parsed.kind === 'ok' && message.subject === subjectOf(service, parsed.value.id)) return accept(parsed.value);
    const fault = parsed.kind === 'ok' ? `id is ${parsed.value.id}` : parsed.fault;
    emit({ type: 'beatRejected', subject: message.subject, fault });
  }

  #accept({ id, incarnation, address, draining }: Replica): void {
    const { clock, emit, service } = this.#options;
    const heardAt = clock.now();
    const replica = { id, incarnation, address, ...(draining ? { draining } : {}) };
    const entry = this.#entries.get(id);
    if (!entry) {
      this.#entries.set(id, { replica, heardAt });
      emit({ type: 'replicaJoined', service, replica });
      return this.#changed();
    }
    const order = compareIncarnations(incarnation, entry.replica.incarnation);
    // Two processes with one id: the one that started later counts. The other may join when that one is gone.
    if (order < 0) return;
    const previous = entry.replica;
    entry.heardAt = heardAt;
    if (order === 0 && address === previous.address && replica.draining === previous.draining) return;
    entry.replica = replica;
    if (order > 0) emit({ type: 'replicaRestarted', service, replica, previousIncarnation: previous.incarnation });
    this.#changed();
  }

  #leave({ id, incarnation }: Pick<Replica, 'id' | 'incarnation'>): void {
    const entry = this.#entries.get(id);
    if (entry?.replica.incarnation === incarnation) this.#remove(entry, 'left');
  }

  #remove({ replica }: Entry, cause: 'left' | 'silent'): void {
    const { emit, service } = this.#options;
    this.#entries.delete(replica.id);
    emit({ type: 'replicaGone', service, replica, cause });
    this.#changed();
  }

  #changed(): void {
    this.#live = [...this.#entries.values()].map(({ replica }) => replica).sort((a, b) => (a.id < b.id ? -1 : 1));
    this.#options.onChange?.();
  }

  #sweepLater(): void {
    this.#cancelSweep();
    this.#cancelSweep = this.#options.clock.schedule(SWEEP_MS, () => {
      this.#sweep();
      this.#sweepLater();
    });
  }

  #sweep(): void {
    const now = this.#options.clock.now();
    if (this.#heardAt === undefined) return;
    if (now - this.#heardAt >= QUIET_MS && now - this.#calledAt >= QUIET_MS) this.#callRoll(now);
    if (this.#isDeaf(now)) return;
    if (this.#settledAt === undefined && now - this.#hearingSince >= SETTLE_MS) {
      this.#settledAt = now;
      this.#noteSettled();
    }
    if (now - this.#hearingSince < GRACE_MS) return;
    for (const entry of [...this.#entries.values()]) if (now - entry.heardAt > GONE_AFTER_MS) this.#remove(entry, 'silent');
  }
}
