/**
 * Who draws next on this node's one GPU? The slot is the only truth about its load.
 *
 * Three things are known at any time: who runs (nobody, or one lease), who is paused (the same), and who
 * comes next:
 *
 *   none      → promised   a bid was granted: the slot was free, or soon will be (staging)
 *   none      → (runs)     a call without a grant found the slot idle
 *   promised  → none       the grant lapsed, was declined, or its router left: the next bid gets it
 *   promised  → (runs)     the granted call came and the slot was free
 *   promised  → staged     the granted call came early and waits for the running request to end
 *   staged    → (runs)     the running request ended
 *   staged    → none       the waiting call was cancelled, or the engine was lost
 *
 * A grant may pre-empt: it is given while a request runs that can wait (libs/scheduling/preemption.ts). When
 * its call comes, the running request is paused, and goes on as soon as the newcomer ends: before that
 * nothing else is granted.
 *
 * Work is bound last: a bid only says "I hold something this urgent", and the router answers a grant
 * with its best request of that moment (reservations with late binding: Sparrow, SOSP 2013).
 * A router that lets grants lapse keeps the GPU from the others for their whole time: its bids are passed over
 * for a while, twice as long each time, until it uses one.
 * Lease ids only rise and a lease frees the slot once, so a late release cannot free a newer lease.
 */
import { type Clock, Code, Reason, StatusError } from '#core';
import { type Bid, isMoreUrgent, type Pausable, type Preemption, type PreemptionPolicy, preemptionFor } from '#scheduling';

export interface SlotOptions {
  readonly clock: Clock;
  /** A grant nobody uses goes to the next bid after this time. */
  readonly grantTtlMs: number;
  /** A slot is granted ahead when the running request is predicted to end within this time. */
  readonly stagingWindowMs: number;
  readonly preemption: PreemptionPolicy;
  /** Lease ids start here; a later start of the node must begin higher. */
  readonly firstLeaseId: bigint;
  /** Something a router or a beat would want to know has changed. Called at once, often. */
  readonly onChange: () => void;
}

export interface SlotSnapshot {
  readonly slotCount: number;
  /** 1 when the slot runs a request or is promised. */
  readonly busyCount: number;
  readonly accepting: boolean;
  readonly nextFreeMs: number;
  /** A request may be paused for so long in all; 0: never. */
  readonly maxPauseMs: number;
}

/** A request that can be paused, and how. */
export interface PauseControl extends Pick<Pausable, 'priority' | 'deadlineAt' | 'stepMs'> {
  /** True when it is off the engine; false when it goes on. Never rejects. */
  pause(): Promise<boolean>;
  /** Goes on after a pause. */
  resume(): void;
}

/** The right to use the engine, until released. */
export interface Lease {
  readonly id: bigint;
  /** Time the call waited for the slot, milliseconds. */
  readonly waitedMs: number;
  /** When the request is predicted to end, in clock milliseconds; opens the staging window. */
  expectEnd(at: number): void;
  /** From now on the request may be paused. */
  allowPause(control: PauseControl): void;
  /** Frees the slot, or ends the pause. Only the first call counts. */
  release(): void;
}

/** One router's stream as the slot sees it. */
export interface Bidder {
  /** Replaces the earlier bid; undefined withdraws it. */
  bid(bid: Bid | undefined): void;
  /** Gives an unused grant back; any other id is ignored. */
  decline(leaseId: bigint): void;
  /** The stream is over: its bid and its unused grant are void. */
  leave(): void;
}

export interface Grant {
  readonly leaseId: bigint;
  readonly ttlMs: number;
  /** Set when a running request will be paused for it: only such a request may use it. */
  readonly preemption?: Preemption;
}

/** A grant was neither used nor declined in its time. */
export interface Lapse {
  readonly leaseId: bigint;
  /** The router's bids are passed over for so long. */
  readonly pauseMs: number;
}

export interface BidderOptions {
  readonly onGrant: (grant: Grant) => void;
  readonly onLapse: (lapse: Lapse) => void;
}

interface Entry extends BidderOptions {
  bid: Bid | undefined;
  /** Since the last grant it used. */
  lapseCount: number;
  /** Ends the wait for its bids to count again; set while they do not. */
  cancelPause: (() => void) | undefined;
}

interface Running {
  readonly id: bigint;
  readonly startedAt: number;
  expectedEndAt: number;
  control: PauseControl | undefined;
  /** Asked to pause, and the answer is not there yet. */
  pausing: boolean;
  pauseCount: number;
  /** In all, without the pause that lasts. */
  pausedMs: number;
  pausedAt: number;
}

type Next =
  | { readonly kind: 'none' }
  | {
      readonly kind: 'promised';
      readonly leaseId: bigint;
      readonly to: Entry;
      readonly preempts: boolean;
      readonly cancelLapse: () => void;
    }
  | {
      readonly kind: 'staged';
      /** The running request is paused for it; other calls wait for its end, though it may be off the engine already. */
      readonly preempts: boolean;
      readonly admit: () => void;
      readonly evict: (reason: StatusError) => void;
    };

const NONE: Next = { kind: 'none' };
/** Assumed length of a run while nothing is known about it. */
const UNKNOWN_RUN_MS = 1000;
/** Nobody is granted a pause for so long after one who did not use it. */
const UNUSED_PAUSE_MS = 30;
/** So many times its TTL is the longest pause after a grant that lapsed: a router that uses none holds 1/17 of the GPU. */
const MAX_PAUSE_TTLS = 16;
/** A prediction that moves less is not worth a message to every router. */
const NEWS_MS = 25;

export class Slot {
  readonly #options: SlotOptions;
  readonly #bidders = new Set<Entry>();
  #running: Running | undefined;
  #paused: Running | undefined;
  #next: Next = NONE;
  #ready = false;
  #draining = false;
  #nextLeaseId: bigint;
  #lastRunMs = UNKNOWN_RUN_MS;
  #noPauseUntil = Number.NEGATIVE_INFINITY;
  #cancelStaging: () => void = () => {};

  constructor(options: SlotOptions) {
    this.#options = options;
    this.#nextLeaseId = options.firstLeaseId;
  }

  get snapshot(): SlotSnapshot {
    const { mode, maxPauseMs } = this.#options.preemption;
    const free = !this.#taken && this.#next.kind === 'none';
    return {
      slotCount: 1,
      busyCount: free ? 0 : 1,
      accepting: this.#accepting,
      nextFreeMs: free ? 0 : this.#nextFreeMs(),
      maxPauseMs: mode === 'off' ? 0 : maxPauseMs,
    };
  }

  /** Whether the engine can draw. When it cannot, who waits is sent away and grants are void. */
  setReady(ready: boolean): void {
    if (ready === this.#ready) return;
    this.#ready = ready;
    if (!ready) {
      this.#revokePromise();
      if (this.#next.kind === 'staged') this.#next.evict(notReadyError());
    }
    this.#resumePaused();
    this.#settle();
  }

  /** While draining nothing new is taken; who runs or waits already is served. */
  setDraining(draining: boolean): void {
    if (draining === this.#draining) return;
    this.#draining = draining;
    if (draining) this.#revokePromise();
    this.#settle();
  }

  join(options: BidderOptions): Bidder {
    const entry: Entry = { ...options, bid: undefined, lapseCount: 0, cancelPause: undefined };
    this.#bidders.add(entry);
    return {
      bid: (bid) => {
        if (!this.#bidders.has(entry)) return;
        entry.bid = bid;
        this.#grantIfDue();
      },
      decline: (leaseId) => {
        if (this.#next.kind !== 'promised' || this.#next.leaseId !== leaseId || this.#next.to !== entry) return;
        this.#noteUnused();
        this.#revokePromise();
        this.#settle();
      },
      leave: () => {
        this.#bidders.delete(entry);
        entry.cancelPause?.();
        if (this.#next.kind === 'promised' && this.#next.to === entry) this.#revokePromise();
        this.#settle();
      },
    };
  }

  /**
   * Takes the slot for a call, `leaseId` being the grant it came with. Waits only when granted ahead
   * of time. A call that is not `ready`, as its model has yet to be loaded, pauses nobody: the load could push
   * out the model of who is paused. Throws NODE_BUSY, DRAINING or ENGINE_NOT_READY; rejects with the signal's reason.
   */
  async take(leaseId: bigint | undefined, signal: AbortSignal, ready = true): Promise<Lease> {
    this.check(leaseId);
    signal.throwIfAborted();
    const granted = this.#isPromised(leaseId);
    const preempts = ready && this.#next.kind === 'promised' && this.#next.preempts;
    if (this.#next.kind === 'promised') this.#next.to.lapseCount = 0;
    if (granted) this.#revokePromise();
    const id = granted && leaseId !== undefined ? leaseId : this.#nextLeaseId++;
    if (!this.#taken) return this.#run(id, 0);
    const staged = this.#stage(id, signal, preempts);
    if (preempts) void this.#pauseRunning();
    return staged;
  }

  /** Throws what `take` would throw now, so that a call that is refused costs no preparation. */
  check(leaseId: bigint | undefined): void {
    if (this.#draining) throw drainingError();
    if (!this.#ready) throw notReadyError();
    const taken = this.#taken || this.#next.kind !== 'none';
    if (taken && !this.#isPromised(leaseId)) throw this.#busyError();
  }

  #isPromised(leaseId: bigint | undefined): boolean {
    return this.#next.kind === 'promised' && this.#next.leaseId === leaseId;
  }

  /** Somebody runs, or is paused and goes on first. */
  get #taken(): boolean {
    return this.#running !== undefined || this.#paused !== undefined;
  }

  get #accepting(): boolean {
    return this.#ready && !this.#draining;
  }

  #run(id: bigint, waitedMs: number): Lease {
    const { clock, onChange } = this.#options;
    const startedAt = clock.now();
    const running: Running = {
      id,
      startedAt,
      expectedEndAt: startedAt + this.#lastRunMs,
      control: undefined,
      pausing: false,
      pauseCount: 0,
      pausedMs: 0,
      pausedAt: 0,
    };
    this.#running = running;
    this.#settle();
    return {
      id,
      waitedMs,
      expectEnd: (at) => {
        if (this.#running !== running) return;
        const movedMs = Math.abs(at - running.expectedEndAt);
        running.expectedEndAt = at;
        if (this.#next.kind === 'staged' && this.#next.preempts) void this.#pauseRunning();
        this.#grantIfDue();
        if (movedMs >= Math.max(NEWS_MS, 0.25 * (at - clock.now()))) onChange();
      },
      allowPause: (control) => {
        running.control = control;
        this.#grantIfDue();
      },
      release: () => {
        if (this.#paused === running) {
          this.#paused = undefined;
          this.#settle();
        }
        if (this.#running !== running) return;
        this.#running = undefined;
        this.#lastRunMs = clock.now() - startedAt - running.pausedMs;
        if (this.#paused) this.#resumePaused();
        else if (this.#next.kind === 'staged') return this.#next.admit();
        this.#settle();
      },
    };
  }

  /** Takes the running request off the engine for the staged call. One that goes on is asked again at its next step. */
  async #pauseRunning(): Promise<void> {
    const running = this.#running;
    if (!running?.control || running.pausing) return;
    running.pausing = true;
    const paused = await running.control.pause();
    running.pausing = false;
    if (!paused || this.#running !== running) return;
    running.pauseCount++;
    running.pausedAt = this.#options.clock.now();
    this.#running = undefined;
    this.#paused = running;
    if (this.#next.kind === 'staged' && this.#next.preempts) return this.#next.admit();
    this.#resumePaused(); // the call has left meanwhile
    this.#settle();
  }

  /** Who is paused goes on when nobody runs; not on an engine in doubt. */
  #resumePaused(): void {
    const paused = this.#paused;
    if (!paused || this.#running || !this.#ready) return;
    const pausedMs = this.#options.clock.now() - paused.pausedAt;
    paused.pausedMs += pausedMs;
    paused.expectedEndAt += pausedMs;
    this.#paused = undefined;
    this.#running = paused;
    paused.control?.resume();
  }

  #stage(id: bigint, signal: AbortSignal, preempts: boolean): Promise<Lease> {
    const cameAt = this.#options.clock.now();
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#next = NONE;
        signal.removeEventListener('abort', onAbort);
      };
      const onAbort = () => {
        leave();
        reject(signal.reason);
        this.#settle();
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#next = {
        kind: 'staged',
        preempts,
        admit: () => {
          leave();
          resolve(this.#run(id, this.#options.clock.now() - cameAt));
        },
        evict: (reason) => {
          leave();
          reject(reason);
        },
      };
      this.#settle();
    });
  }

  #settle(): void {
    this.#grantIfDue();
    this.#options.onChange();
  }

  /** Grants the slot to the best bid when it is free, soon will be, or is worth a pause; otherwise comes back then. */
  #grantIfDue(): void {
    this.#cancelStaging();
    this.#cancelStaging = () => {};
    const best = this.#bestBidder();
    if (!this.#accepting || this.#next.kind !== 'none' || this.#paused || !best?.bid) return;
    const { clock, stagingWindowMs } = this.#options;
    const waitMs = this.#running ? this.#running.expectedEndAt - stagingWindowMs - clock.now() : 0;
    if (waitMs <= 0) return this.#promise(best);
    const preemption = this.#preemptionFor(best.bid);
    if (preemption) this.#promise(best, preemption);
    else this.#cancelStaging = clock.schedule(waitMs, () => this.#grantIfDue());
  }

  #preemptionFor(bid: Bid): Preemption | undefined {
    const { clock, preemption: policy } = this.#options;
    const running = this.#running;
    if (!running?.control || clock.now() < this.#noPauseUntil) return undefined;
    return preemptionFor(bid, { ...running.control, ...running }, policy, clock.now());
  }

  #promise(to: Entry, preemption?: Preemption): void {
    const { clock, grantTtlMs, onChange } = this.#options;
    const leaseId = this.#nextLeaseId++;
    const cancelLapse = clock.schedule(grantTtlMs, () => {
      this.#noteUnused();
      this.#next = NONE;
      this.#passOver(to, leaseId);
      this.#settle();
    });
    this.#next = { kind: 'promised', leaseId, to, preempts: preemption !== undefined, cancelLapse };
    to.bid = undefined;
    to.onGrant({ leaseId, ttlMs: grantTtlMs, ...(preemption ? { preemption } : {}) });
    onChange();
  }

  /** Hung or ill-behaved, it would be asked again at once, and hold the slot again. */
  #passOver(entry: Entry, leaseId: bigint): void {
    const { clock, grantTtlMs } = this.#options;
    const pauseMs = grantTtlMs * Math.min(2 ** entry.lapseCount++, MAX_PAUSE_TTLS);
    entry.cancelPause = clock.schedule(pauseMs, () => {
      entry.cancelPause = undefined;
      this.#grantIfDue();
    });
    entry.onLapse({ leaseId, pauseMs });
  }

  /** A router that had nothing for a pause bids again at once, and would be asked again at once. */
  #noteUnused(): void {
    if (this.#next.kind === 'promised' && this.#next.preempts) this.#noPauseUntil = this.#options.clock.now() + UNUSED_PAUSE_MS;
  }

  #revokePromise(): void {
    if (this.#next.kind !== 'promised') return;
    this.#next.cancelLapse();
    this.#next = NONE;
  }

  /** The bid with the most urgent request, of those that count. */
  #bestBidder(): Entry | undefined {
    let best: Entry | undefined;
    for (const entry of this.#bidders) {
      if (entry.bid && !entry.cancelPause && (!best?.bid || isMoreUrgent(entry.bid, best.bid))) best = entry;
    }
    return best;
  }

  #nextFreeMs(): number {
    const nowMs = this.#options.clock.now();
    const runningMs = this.#running ? Math.max(0, this.#running.expectedEndAt - nowMs) : 0;
    const pausedMs = this.#paused ? Math.max(0, this.#paused.expectedEndAt - this.#paused.pausedAt) : 0;
    const takenMs = runningMs + pausedMs;
    return this.#next.kind === 'none' ? takenMs : takenMs + this.#lastRunMs;
  }

  #busyError(): StatusError {
    return new StatusError({
      code: Code.RESOURCE_EXHAUSTED,
      reason: Reason.NODE_BUSY,
      message: 'the slot of this node is taken; ask a router, or come back',
      retryDelayMs: Math.ceil(this.#nextFreeMs()),
    });
  }
}

function drainingError(): StatusError {
  return new StatusError({ code: Code.UNAVAILABLE, reason: Reason.DRAINING, message: 'this node takes no new work; call another' });
}

function notReadyError(): StatusError {
  return new StatusError({ code: Code.UNAVAILABLE, reason: Reason.ENGINE_NOT_READY, message: 'the engine of this node is not ready' });
}
