/**
 * Who draws next on this node's one GPU? The slot is the only truth about its load.
 *
 * Two things are known at any time: who runs (nobody, or one lease), and who comes next:
 *
 *   none      → promised   a bid was granted: the slot was free, or soon will be (staging)
 *   none      → (runs)     a call without a grant found the slot idle
 *   promised  → none       the grant lapsed, was declined, or its router left: the next bid gets it
 *   promised  → (runs)     the granted call came and the slot was free
 *   promised  → staged     the granted call came early and waits for the running request to end
 *   staged    → (runs)     the running request ended
 *   staged    → none       the waiting call was cancelled, or the engine was lost
 *
 * Work is bound last: a bid only says "I hold something this urgent", and the router answers a grant
 * with its best request of that moment (reservations with late binding: Sparrow, SOSP 2013).
 * Lease ids only rise and a lease frees the slot once, so a late release cannot free a newer lease.
 */
import { type Clock, Code, Reason, StatusError } from '#core';
import { isMoreUrgent, type Urgency } from '#scheduling';

export interface SlotOptions {
  readonly clock: Clock;
  /** A grant nobody uses goes to the next bid after this time. */
  readonly grantTtlMs: number;
  /** A slot is granted ahead when the running request is predicted to end within this time. */
  readonly stagingWindowMs: number;
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
}

/** The right to use the engine, until released. */
export interface Lease {
  readonly id: bigint;
  /** Time the call waited for the slot, milliseconds. */
  readonly waitedMs: number;
  /** When the request is predicted to end, in clock milliseconds; opens the staging window. */
  expectEnd(at: number): void;
  /** Frees the slot. Only the first call counts. */
  release(): void;
}

/** One router's stream as the slot sees it. */
export interface Bidder {
  /** Replaces the earlier bid; undefined withdraws it. */
  bid(urgency: Urgency | undefined): void;
  /** Gives an unused grant back; any other id is ignored. */
  decline(leaseId: bigint): void;
  /** The stream is over: its bid and its unused grant are void. */
  leave(): void;
}

export interface Grant {
  readonly leaseId: bigint;
  readonly ttlMs: number;
}

interface Entry {
  readonly onGrant: (grant: Grant) => void;
  bid: Urgency | undefined;
}

interface Running {
  readonly id: bigint;
  readonly startedAt: number;
  expectedEndAt: number;
}

type Next =
  | { readonly kind: 'none' }
  | { readonly kind: 'promised'; readonly leaseId: bigint; readonly to: Entry; readonly untilAt: number; readonly cancelLapse: () => void }
  | { readonly kind: 'staged'; readonly admit: () => void; readonly evict: (reason: StatusError) => void };

const NONE: Next = { kind: 'none' };
/** Assumed length of a run while nothing is known about it. */
const UNKNOWN_RUN_MS = 1000;
/** A prediction that moves less is not worth a message to every router. */
const NEWS_MS = 25;

export class Slot {
  readonly #options: SlotOptions;
  readonly #bidders = new Set<Entry>();
  #running: Running | undefined;
  #next: Next = NONE;
  #ready = false;
  #draining = false;
  #nextLeaseId: bigint;
  #lastRunMs = UNKNOWN_RUN_MS;
  #cancelStaging: () => void = () => {};

  constructor(options: SlotOptions) {
    this.#options = options;
    this.#nextLeaseId = options.firstLeaseId;
  }

  get snapshot(): SlotSnapshot {
    const free = !this.#running && this.#next.kind === 'none';
    return { slotCount: 1, busyCount: free ? 0 : 1, accepting: this.#accepting, nextFreeMs: free ? 0 : this.#nextFreeMs() };
  }

  /** Whether the engine can draw. When it cannot, who waits is sent away and grants are void. */
  setReady(ready: boolean): void {
    if (ready === this.#ready) return;
    this.#ready = ready;
    if (!ready) {
      this.#revokePromise();
      if (this.#next.kind === 'staged') this.#next.evict(notReadyError());
    }
    this.#settle();
  }

  /** While draining nothing new is taken; who runs or waits already is served. */
  setDraining(draining: boolean): void {
    if (draining === this.#draining) return;
    this.#draining = draining;
    if (draining) this.#revokePromise();
    this.#settle();
  }

  join(onGrant: (grant: Grant) => void): Bidder {
    const entry: Entry = { onGrant, bid: undefined };
    this.#bidders.add(entry);
    return {
      bid: (urgency) => {
        if (!this.#bidders.has(entry)) return;
        entry.bid = urgency;
        this.#grantIfDue();
      },
      decline: (leaseId) => {
        if (this.#next.kind !== 'promised' || this.#next.leaseId !== leaseId || this.#next.to !== entry) return;
        this.#revokePromise();
        this.#settle();
      },
      leave: () => {
        this.#bidders.delete(entry);
        if (this.#next.kind === 'promised' && this.#next.to === entry) this.#revokePromise();
        this.#settle();
      },
    };
  }

  /**
   * Takes the slot for a call, `leaseId` being the grant it came with. Waits only when granted ahead
   * of time. Throws NODE_BUSY, DRAINING or ENGINE_NOT_READY; rejects with the signal's reason.
   */
  async take(leaseId: bigint | undefined, signal: AbortSignal): Promise<Lease> {
    this.check(leaseId);
    signal.throwIfAborted();
    const granted = this.#isPromised(leaseId);
    if (granted) this.#revokePromise();
    const id = granted && leaseId !== undefined ? leaseId : this.#nextLeaseId++;
    return this.#running ? this.#stage(id, signal) : this.#run(id, 0);
  }

  /** Throws what `take` would throw now, so that a call that is refused costs no preparation. */
  check(leaseId: bigint | undefined): void {
    if (this.#draining) throw drainingError();
    if (!this.#ready) throw notReadyError();
    const taken = this.#running !== undefined || this.#next.kind !== 'none';
    if (taken && !this.#isPromised(leaseId)) throw this.#busyError();
  }

  #isPromised(leaseId: bigint | undefined): boolean {
    return this.#next.kind === 'promised' && this.#next.leaseId === leaseId;
  }

  get #accepting(): boolean {
    return this.#ready && !this.#draining;
  }

  #run(id: bigint, waitedMs: number): Lease {
    const { clock, onChange } = this.#options;
    const startedAt = clock.now();
    const running: Running = { id, startedAt, expectedEndAt: startedAt + this.#lastRunMs };
    this.#running = running;
    this.#settle();
    return {
      id,
      waitedMs,
      expectEnd: (at) => {
        if (this.#running !== running) return;
        const movedMs = Math.abs(at - running.expectedEndAt);
        running.expectedEndAt = at;
        this.#grantIfDue();
        if (movedMs >= Math.max(NEWS_MS, 0.25 * (at - clock.now()))) onChange();
      },
      release: () => {
        if (this.#running !== running) return;
        this.#running = undefined;
        this.#lastRunMs = clock.now() - startedAt;
        if (this.#next.kind === 'staged') this.#next.admit();
        else this.#settle();
      },
    };
  }

  #stage(id: bigint, signal: AbortSignal): Promise<Lease> {
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

  /** Grants the slot to the best bid when it is free or soon will be; otherwise comes back then. */
  #grantIfDue(): void {
    this.#cancelStaging();
    this.#cancelStaging = () => {};
    const best = this.#bestBidder();
    if (!this.#accepting || this.#next.kind !== 'none' || !best) return;
    const { clock, stagingWindowMs } = this.#options;
    const waitMs = this.#running ? this.#running.expectedEndAt - stagingWindowMs - clock.now() : 0;
    if (waitMs > 0) this.#cancelStaging = clock.schedule(waitMs, () => this.#grantIfDue());
    else this.#promise(best);
  }

  #promise(to: Entry): void {
    const { clock, grantTtlMs, onChange } = this.#options;
    const leaseId = this.#nextLeaseId++;
    const cancelLapse = clock.schedule(grantTtlMs, () => {
      this.#next = NONE;
      this.#settle();
    });
    this.#next = { kind: 'promised', leaseId, to, untilAt: clock.now() + grantTtlMs, cancelLapse };
    to.bid = undefined;
    to.onGrant({ leaseId, ttlMs: grantTtlMs });
    onChange();
  }

  #revokePromise(): void {
    if (this.#next.kind !== 'promised') return;
    this.#next.cancelLapse();
    this.#next = NONE;
  }

  /** The bid with the most urgent request. */
  #bestBidder(): Entry | undefined {
    let best: Entry | undefined;
    for (const entry of this.#bidders) {
      if (entry.bid && (!best?.bid || isMoreUrgent(entry.bid, best.bid))) best = entry;
    }
    return best;
  }

  #nextFreeMs(): number {
    const nowMs = this.#options.clock.now();
    const runningMs = this.#running ? Math.max(0, this.#running.expectedEndAt - nowMs) : 0;
    return this.#next.kind === 'none' ? runningMs : runningMs + this.#lastRunMs;
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
