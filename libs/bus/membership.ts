/**
 * Who is in the mesh, as one observer knows it from beats. Pure: beats, leaves and the state of the
 * link come in, events go out; the clock is an argument. NATS hints, gRPC proves: nothing here takes
 * away a node that a live gRPC stream vouches for, and a refused connection is the router's to judge.
 *
 * Freezes rather than guess: while NATS is away, and when more than half of at least three members fall silent
 * within one interval (it is then likelier that we, or NATS, are deaf), everybody stays what they were.
 *
 *   live ── link lost, or most fall silent ──► frozen ── link back; most beat again ──► grace ── 3 intervals ──► live
 *
 * A freeze for mass silence ends after a minute at the latest: if most are dead, that has to show.
 * Work per beat is constant; the table is swept twice a second. Ideas: SWIM's suspicion and
 * incarnations, Lifeguard's self-doubt (an observer that was paused itself gives others more time).
 */
import type { Clock, Emit } from '#core';
import type { Beat, Leave } from './beat.js';
import { type Freshness, firstArrival, noteArrival } from './freshness.js';
import { compareIncarnations } from './incarnation.js';
import { changedAspects, type Member, type MemberState } from './member.js';
import type { FreezeCause, MembershipEvent } from './membership-events.js';

export interface MembershipOptions {
  readonly clock: Clock;
  readonly emit: Emit<MembershipEvent>;
  /** How long this process was deaf lately, added to every patience; telemetry's event-loop lag. */
  readonly lagMs: () => number;
  /** Asks every node to beat now; called when a freeze needs to be decided. */
  readonly rollCall: () => void;
  /** Default 1000: how often nodes beat. */
  readonly intervalMs?: number;
}

/** Beats come up to a tenth late by design, so three missed ones are 3.3 intervals of silence. */
const SUSPECT_AFTER_INTERVALS = 3.3;
const GONE_AFTER_INTERVALS = 10;
/** At the moment the first of a crowd becomes suspect, the others are silent for at least this long. */
const FELL_SILENT_INTERVALS = SUSPECT_AFTER_INTERVALS - 1.1;
const GRACE_INTERVALS = 3;
const FORGET_AFTER_MS = 60_000;
const MASS_FREEZE_LIMIT_MS = 60_000;
const MASS_MIN_MEMBERS = 3;
const SWEEP_MS = 500;
/** A few late beats of the former life are usual after a restart; more mean that it still runs. */
const SHADOW_COUNT = 5;

interface Entry extends Freshness {
  readonly nodeId: string;
  state: MemberState;
  beat: Beat;
  joinedAt: number;
  heardAt: number;
  goneAt: number;
  /** A live gRPC stream (true), a broken one (false), or no evidence yet. */
  reachable: boolean | undefined;
  shadow: { readonly incarnation: string; count: number } | undefined;
}

type Phase =
  | { readonly kind: 'live' }
  | { readonly kind: 'frozen'; readonly cause: FreezeCause; readonly since: number }
  | { readonly kind: 'grace'; readonly cause: FreezeCause; readonly since: number; readonly until: number };

export class Membership {
  readonly #options: Required<MembershipOptions>;
  readonly #entries = new Map<string, Entry>();
  /** Nodes that left, so that a late beat does not bring back a ghost. */
  readonly #left = new Map<string, { readonly incarnation: string; readonly at: number }>();
  #phase: Phase;
  #connected = false;
  #deafSince: number | undefined;
  #deafTotalMs = 0;
  #cancelSweep = () => {};

  constructor(options: MembershipOptions) {
    this.#options = { intervalMs: 1000, ...options };
    const now = options.clock.now();
    this.#phase = { kind: 'frozen', cause: 'start', since: now };
    this.#deafSince = now;
  }

  /** Members in the order they joined: alive, suspect and gone ones. */
  get members(): ReadonlyMap<string, Member> {
    return this.#entries;
  }

  get(nodeId: string): Member | undefined {
    return this.#entries.get(nodeId);
  }

  /** True while silence is not held against anybody. */
  get frozen(): boolean {
    return this.#phase.kind !== 'live';
  }

  start(): void {
    this.#cancelSweep();
    this.#cancelSweep = this.#options.clock.schedule(SWEEP_MS, () => {
      this.sweep();
      this.start();
    });
  }

  stop(): void {
    this.#cancelSweep();
  }

  /** Constant work. False when the beat is older than what is known. */
  accept(beat: Beat): boolean {
    const now = this.#options.clock.now();
    const entry = this.#entries.get(beat.nodeId);
    if (!entry) return this.#join(beat, now);
    const order = compareIncarnations(beat.incarnation, entry.beat.incarnation);
    if (order > 0) return this.#restart(entry, beat, now);
    if (order < 0) return this.#shadowed(entry, beat, now);
    if (beat.seq <= entry.beat.seq) return false;

    const before = entry.beat;
    entry.beat = beat;
    entry.heardAt = now;
    noteArrival(entry, this.#heardMs(now), this.#options.intervalMs);
    this.#recover(entry, now);
    const aspects = changedAspects(before, beat);
    if (aspects.length > 0) this.#options.emit({ type: 'memberChanged', member: entry, aspects });
    return true;
  }

  /** Removes the member at once. A leave of an earlier life is ignored. */
  leave(leave: Leave): boolean {
    const entry = this.#entries.get(leave.nodeId);
    if (entry && compareIncarnations(leave.incarnation, entry.beat.incarnation) < 0) return false;
    if (!entry) return false;
    this.#left.set(leave.nodeId, { incarnation: leave.incarnation, at: this.#options.clock.now() });
    this.#entries.delete(leave.nodeId);
    this.#options.emit({ type: 'memberLeft', member: entry });
    return true;
  }

  /** A gRPC stream to the node is up: silence on NATS alone does not make it gone. */
  noteReachable(nodeId: string): void {
    const entry = this.#entries.get(nodeId);
    if (entry) entry.reachable = true;
  }

  /** The stream broke or the connection was refused: the node's silence is no longer a riddle. */
  noteUnreachable(nodeId: string): void {
    const entry = this.#entries.get(nodeId);
    if (entry) entry.reachable = false;
  }

  /** The link to NATS. A Membership starts unlinked. */
  setConnected(connected: boolean): void {
    if (connected === this.#connected) return;
    this.#connected = connected;
    const now = this.#options.clock.now();
    if (!connected) {
      this.#deafSince = now;
      if (this.#phase.kind === 'live') this.#freeze('linkLost', now, this.#entries.size);
      else this.#phase = { ...this.#phase, kind: 'frozen' };
      return;
    }
    this.#deafTotalMs += now - (this.#deafSince ?? now);
    this.#deafSince = undefined;
    this.#grace(now);
    this.#options.rollCall();
  }

  /** Moves time's work: thaw, suspicion, departure, forgetting. Called twice a second by start(). */
  sweep(): void {
    const now = this.#options.clock.now();
    const gaveUp = this.#decideFreeze(now);
    if (this.#phase.kind !== 'live') return;
    if (!gaveUp && this.#freezeIfMostFellSilent(now)) return;
    for (const entry of this.#entries.values()) this.#judge(entry, now);
    for (const [nodeId, left] of this.#left) if (now - left.at >= FORGET_AFTER_MS) this.#left.delete(nodeId);
  }

  #join(beat: Beat, now: number): boolean {
    const left = this.#left.get(beat.nodeId);
    if (left && this.#isLate(beat, left, now)) return false;
    this.#left.delete(beat.nodeId);
    const entry: Entry = {
      nodeId: beat.nodeId,
      state: 'alive',
      beat,
      joinedAt: now,
      heardAt: now,
      goneAt: 0,
      reachable: undefined,
      shadow: undefined,
      ...firstArrival(this.#heardMs(now)),
    };
    this.#entries.set(beat.nodeId, entry);
    this.#options.emit({ type: 'memberJoined', member: entry });
    return true;
  }

  #restart(entry: Entry, beat: Beat, now: number): boolean {
    const previousIncarnation = entry.beat.incarnation;
    const fresh = firstArrival(this.#heardMs(now));
    Object.assign(entry, fresh, { state: 'alive', beat, joinedAt: now, heardAt: now, reachable: undefined, shadow: undefined });
    this.#options.emit({ type: 'memberRestarted', member: entry, previousIncarnation });
    return true;
  }

  /** A beat of the life that left, or of an earlier one; an earlier one that still beats has started on a clock set back. */
  #isLate(beat: Beat, left: { readonly incarnation: string; readonly at: number }, now: number): boolean {
    const order = compareIncarnations(beat.incarnation, left.incarnation);
    return order === 0 || (order < 0 && now - left.at <= this.#patienceMs(SUSPECT_AFTER_INTERVALS));
  }

  #shadowed(entry: Entry, beat: Beat, now: number): boolean {
    if (entry.shadow?.incarnation !== beat.incarnation) entry.shadow = { incarnation: beat.incarnation, count: 0 };
    entry.shadow.count += 1;
    // The life we know is silent and this one goes on beating: it is the later one, its machine's clock was set back.
    if (entry.state !== 'alive' && entry.shadow.count >= SHADOW_COUNT) return this.#restart(entry, beat, now);
    if (entry.shadow.count === SHADOW_COUNT) {
      this.#options.emit({ type: 'memberShadowed', member: entry, otherIncarnation: beat.incarnation });
    }
    return false;
  }

  #recover(entry: Entry, now: number): void {
    const from = entry.state;
    if (from === 'alive' || this.#silentMs(entry, now) > this.#patienceMs(SUSPECT_AFTER_INTERVALS)) return; // a stale burst
    entry.state = 'alive';
    this.#options.emit({ type: 'memberRecovered', member: entry, from });
  }

  #judge(entry: Entry, now: number): void {
    const silentMs = this.#silentMs(entry, now);
    const { emit } = this.#options;
    if (entry.state === 'alive' && silentMs > this.#patienceMs(SUSPECT_AFTER_INTERVALS)) {
      entry.state = 'suspect';
      emit({ type: 'memberSuspected', member: entry, silentMs });
    } else if (entry.state === 'suspect' && silentMs > this.#patienceMs(GONE_AFTER_INTERVALS) && entry.reachable !== true) {
      entry.state = 'gone';
      entry.goneAt = now;
      emit({ type: 'memberGone', member: entry, silentMs });
    } else if (entry.state === 'gone' && now - entry.goneAt > FORGET_AFTER_MS) {
      this.#entries.delete(entry.nodeId);
      emit({ type: 'memberForgotten', member: entry });
    }
  }

  #freezeIfMostFellSilent(now: number): boolean {
    let aliveCount = 0;
    let silentCount = 0;
    let decisive = false;
    const suspectMs = this.#patienceMs(SUSPECT_AFTER_INTERVALS);
    const fellSilentMs = this.#patienceMs(FELL_SILENT_INTERVALS);
    for (const entry of this.#entries.values()) {
      if (entry.state !== 'alive') continue;
      aliveCount += 1;
      // A member whose connection broke too is dead, not unheard.
      const silentMs = entry.reachable === false ? 0 : this.#silentMs(entry, now);
      if (silentMs > fellSilentMs) silentCount += 1;
      if (silentMs > suspectMs) decisive = true;
    }
    if (!decisive || aliveCount < MASS_MIN_MEMBERS || silentCount * 2 <= aliveCount) return false;
    this.#freeze('massSilence', now, silentCount);
    this.#options.rollCall();
    return true;
  }

  #freeze(cause: FreezeCause, now: number, silentCount: number): void {
    this.#phase = { kind: 'frozen', cause, since: now };
    this.#options.emit({ type: 'membershipFrozen', cause, silentCount, memberCount: this.#entries.size });
  }

  #grace(now: number): void {
    if (this.#phase.kind === 'live') return;
    const { cause, since } = this.#phase;
    this.#phase = { kind: 'grace', cause, since, until: now + GRACE_INTERVALS * this.#options.intervalMs };
  }

  /** True when a mass silence has lasted too long to be a mistake of ours. */
  #decideFreeze(now: number): boolean {
    const phase = this.#phase;
    if (phase.kind === 'grace' && now >= phase.until) this.#thaw(phase.cause, now - phase.since);
    if (phase.kind !== 'frozen' || phase.cause !== 'massSilence') return false;
    const gaveUp = now - phase.since >= MASS_FREEZE_LIMIT_MS;
    if (gaveUp) this.#thaw(phase.cause, now - phase.since);
    else if (this.#mostAreBack(now)) this.#grace(now);
    else this.#options.rollCall();
    return gaveUp;
  }

  #mostAreBack(now: number): boolean {
    let count = 0;
    let silentCount = 0;
    for (const entry of this.#entries.values()) {
      if (entry.state !== 'alive' || entry.reachable === false) continue;
      count += 1;
      if (this.#silentMs(entry, now) > this.#patienceMs(FELL_SILENT_INTERVALS)) silentCount += 1;
    }
    return silentCount * 2 <= count;
  }

  #thaw(cause: FreezeCause, frozenMs: number): void {
    this.#phase = { kind: 'live' };
    this.#options.emit({ type: 'membershipThawed', cause, frozenMs });
  }

  #silentMs(entry: Entry, now: number): number {
    return this.#heardMs(now) - entry.freshAt;
  }

  /** A clock that stands still while there is no link: time without NATS is nobody's silence. */
  #heardMs(now: number): number {
    return (this.#deafSince ?? now) - this.#deafTotalMs;
  }

  #patienceMs(intervals: number): number {
    return intervals * this.#options.intervalMs + this.#options.lagMs();
  }
}
