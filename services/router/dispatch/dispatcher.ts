/**
 * Who runs next, and where? All waiting requests stand in one queue. A request starts when a node has
 * an idle slot (it is simply called) or when a busy node grants the slot that frees to our bid. Work
 * is bound to a node at the last moment (late binding), so an urgent request never waits behind one
 * that was placed early, and nothing is stranded when a node dies.
 */
import type { Permit } from '#breaker';
import { type Clock, Code, type Emit, Reason, StatusError } from '#core';
import { type CostModel, type Lease, type LeaseTable, place, type WaitQueue } from '#scheduling';
import type { RouterEvent } from '../events.js';
import type { Fleet } from './fleet.js';
import type { FleetNode } from './fleet-node.js';
import type { Ticket } from './ticket.js';

/** A node's slot, ours until released. */
export interface Slot {
  readonly node: FleetNode;
  /** Of the node's grant; undefined when an idle slot is called. */
  readonly grantId: bigint | undefined;
  readonly permit: Permit;
  readonly predictedMs: number;
  readonly lease: Lease;
}

export interface DispatcherOptions {
  readonly clock: Clock;
  readonly emit: Emit<RouterEvent>;
  readonly fleet: Fleet;
  readonly queue: WaitQueue<Ticket>;
  readonly leases: LeaseTable;
  readonly cost: CostModel;
  /** Longest wait for a slot. */
  readonly queueTimeoutMs: number;
  /** Longest wait while no node could ever take the request. */
  readonly noNodesWaitMs: number;
  /** Waiting requests beyond this are refused. */
  readonly queueLimit: number;
}

interface Waiter {
  readonly ticket: Ticket;
  readonly resolve: (slot: Slot) => void;
  readonly reject: (error: StatusError) => void;
  /** Since when nobody could take it; undefined while somebody could. */
  strandedAt: number | undefined;
  told: number;
}

/** A refusal for the deadline leaves this long before it, so that the details reach the caller. */
const DEADLINE_MARGIN_MS = 30;
/**
 * A standing bid that claims to be older than our best request by more than this is replaced; the part for
 * each node keeps a large mesh at 4,000 replacements a second.
 */
const BID_AGE_NEWS_MS = 25;
const BID_AGE_NEWS_MS_PER_NODE = 0.25;
/** How often waiting requests are looked over: stranded ones, and positions to report. */
const SWEEP_MS = 200;

export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #waiters = new Map<Ticket, Waiter>();
  #pumpScheduled = false;
  #cancelSweep: (() => void) | undefined;

  constructor(options: DispatcherOptions) {
    this.#options = options;
  }

  /** Requests waiting for a slot. */
  get waitingCount(): number {
    return this.#options.queue.size;
  }

  /**
   * Waits for a slot. Rejects with QUEUE_FULL, QUEUE_TIMEOUT, NO_NODES, or the signal's reason.
   * A returning request (a retry) keeps its place and is never refused for a full queue.
   */
  acquire(ticket: Ticket, signal: AbortSignal): Promise<Slot> {
    const { clock, fleet, queue, queueLimit, queueTimeoutMs } = this.#options;
    const full = queue.size >= queueLimit && fleet.idleCount() <= queue.size;
    if (full && ticket.lastError === undefined) return Promise.reject(this.#queueFull());
    const waitedFrom = clock.now();
    if (ticket.deadlineAt <= waitedFrom) return Promise.reject(ticket.lastError ?? this.#queueTimeout(ticket, ticket.queuedMs));
    return new Promise<Slot>((resolve, reject) => {
      const leave = () => {
        cancelTimer();
        signal.removeEventListener('abort', onAbort);
        ticket.queuedMs += clock.now() - waitedFrom;
      };
      const waiter: Waiter = {
        ticket,
        strandedAt: undefined,
        told: 0,
        resolve: (slot) => {
          leave();
          resolve(slot);
        },
        reject: (error) => {
          leave();
          this.#forget(ticket);
          reject(error);
        },
      };
      const onAbort = () => waiter.reject(StatusError.from(signal.reason));
      // Time that earlier attempts ran is not waiting.
      const waitMs = Math.min(queueTimeoutMs - ticket.queuedMs, ticket.deadlineAt - DEADLINE_MARGIN_MS - waitedFrom);
      const cancelTimer = clock.schedule(waitMs, () =>
        waiter.reject(this.#queueTimeout(ticket, ticket.queuedMs + clock.now() - waitedFrom)),
      );
      this.#waiters.set(ticket, waiter);
      queue.add(ticket);
      signal.addEventListener('abort', onAbort, { once: true });
      if (signal.aborted) return onAbort();
      this.pump();
      this.#sweepSoon();
    });
  }

  /** Gives a slot back. Whatever comes late for it changes nothing any more. */
  release(slot: Slot): void {
    if (this.#options.leases.release(slot.lease)) this.pump();
  }

  /** Looks for work that can start; called at every change of slots, nodes or queue. Coalesced. */
  pump(): void {
    if (this.#pumpScheduled) return;
    this.#pumpScheduled = true;
    queueMicrotask(() => {
      this.#pumpScheduled = false;
      this.#startOnIdleNodes();
      this.#bidForBusyNodes();
    });
  }

  /** A node grants its next slot: it goes to whatever is our best request now. */
  onGrant(node: FleetNode, grantId: bigint): void {
    const ticket = this.#options.queue.first((waiting) => node.canTake(waiting) && this.#isWorthStarting(waiting, node));
    const permit = ticket && node.breaker.admit();
    if (ticket && permit) this.#start(ticket, node, permit, grantId);
    else node.link.decline(grantId);
    this.pump();
  }

  close(): void {
    this.#cancelSweep?.();
    for (const waiter of [...this.#waiters.values()]) {
      waiter.reject(new StatusError({ code: Code.UNAVAILABLE, reason: Reason.DRAINING, message: 'this router is stopping; call another' }));
    }
  }

  #startOnIdleNodes(): void {
    const { fleet, queue, cost } = this.#options;
    let idleCount = fleet.idleCount();
    if (idleCount === 0 || queue.size === 0) return;
    for (const ticket of [...queue]) {
      if (idleCount === 0) return;
      const eligible = fleet.eligible(ticket);
      const placement = place(eligible.map((node) => node.candidate(cost.predictMs(node.nodeId, ticket.work))));
      if (placement?.kind !== 'start') continue;
      const node = fleet.get(placement.nodeId);
      const permit = node?.breaker.admit();
      if (!node || !permit) continue;
      node.link.takeFree();
      idleCount--;
      this.#start(ticket, node, permit, undefined);
    }
  }

  /** False when a faster node that is busy would still finish it sooner. */
  #isWorthStarting(ticket: Ticket, granted: FleetNode): boolean {
    const { cost, fleet } = this.#options;
    const candidates = fleet.eligible(ticket).map((node) => {
      const candidate = node.candidate(cost.predictMs(node.nodeId, ticket.work));
      return node === granted ? { ...candidate, freeInMs: 0 } : candidate;
    });
    return place(candidates)?.kind === 'start';
  }

  #start(ticket: Ticket, node: FleetNode, permit: Permit, grantId: bigint | undefined): void {
    const { clock, cost, leases, queue, emit } = this.#options;
    const waiter = this.#waiters.get(ticket);
    if (!waiter) return; // left between two lines of the same turn: cannot happen, and must not start work for nobody
    queue.remove(ticket);
    this.#waiters.delete(ticket);
    const predictedMs = cost.predictMs(node.nodeId, ticket.work);
    const startedAt = clock.now();
    const lease = leases.take({ nodeId: node.nodeId, requestId: ticket.requestId, startedAt, expectedEndAt: startedAt + predictedMs });
    waiter.resolve({ node, grantId, permit, predictedMs, lease });
    emit({
      type: 'dispatched',
      requestId: ticket.requestId,
      nodeId: node.nodeId,
      queuedMs: ticket.queuedMs,
      granted: grantId !== undefined,
    });
  }

  /**
   * Bids where slots free soonest, one bid for each waiting request at most: a thousand nodes do not
   * mean a thousand messages.
   */
  #bidForBusyNodes(): void {
    const { clock, fleet, queue } = this.#options;
    const head = queue.head;
    let standing = 0;
    const open: FleetNode[] = [];
    for (const node of fleet) {
      if (node.link.bidding) standing += this.#renewBid(node) ? 1 : 0;
      // An idle node that was passed over has a faster one behind it: not worth a bid.
      else if (head && node.usable && node.link.freeCount === 0) open.push(node);
    }
    if (!head || standing >= queue.size) return;
    open.sort((a, b) => a.link.freeInMs - b.link.freeInMs);
    for (const node of open) {
      if (standing >= queue.size) return;
      const best = queue.first((ticket) => node.canTake(ticket));
      if (!best) continue;
      node.link.bid(queue.size, clock.now() - best.arrivedAt);
      standing++;
    }
  }

  /**
   * A bid made for a request that has since started elsewhere claims an age we no longer hold, and would
   * take a slot from an older request of another router. Told anew only when that is off by a good deal.
   * False when it is withdrawn: nothing waits any more that this node could take.
   */
  #renewBid(node: FleetNode): boolean {
    const { clock, fleet, queue } = this.#options;
    const best = queue.first((ticket) => node.canTake(ticket));
    if (!best) {
      node.link.bid(0, 0);
      return false;
    }
    const ageMs = clock.now() - best.arrivedAt;
    if (node.link.bidAgeMs - ageMs > BID_AGE_NEWS_MS + BID_AGE_NEWS_MS_PER_NODE * fleet.size) node.link.bid(queue.size, ageMs);
    return true;
  }

  #sweepSoon(): void {
    this.#cancelSweep ??= this.#options.clock.schedule(SWEEP_MS, () => {
      this.#cancelSweep = undefined;
      this.#sweep();
      if (this.#waiters.size > 0) this.#sweepSoon();
    });
  }

  #sweep(): void {
    const { clock, fleet, queue, noNodesWaitMs } = this.#options;
    const slotCount = Math.max(1, fleet.slotCount());
    let backlogMs = this.#runningBacklogMs();
    let position = 0;
    for (const ticket of [...queue]) {
      const waiter = this.#waiters.get(ticket);
      if (!waiter) continue;
      position++;
      const runMs = ticket.costMs;
      const etaMs = backlogMs / slotCount + runMs;
      backlogMs += runMs;
      if (ticket.onQueued && waiter.told !== position) {
        waiter.told = position;
        ticket.onQueued(position, etaMs);
      }
      if (fleet.couldServe(ticket)) waiter.strandedAt = undefined;
      else {
        waiter.strandedAt ??= clock.now();
        if (clock.now() - waiter.strandedAt >= noNodesWaitMs) waiter.reject(noNodes(ticket, noNodesWaitMs));
      }
    }
  }

  /** Predicted time until a request arriving now would be finished, milliseconds. */
  etaMs(ticket: Ticket): number {
    const { fleet, queue } = this.#options;
    const runMs = ticket.costMs;
    if (fleet.idleCount() > queue.size) return runMs;
    let backlogMs = this.#runningBacklogMs();
    for (const waiting of queue) backlogMs += waiting.costMs;
    return backlogMs / Math.max(1, fleet.slotCount()) + runMs;
  }

  #runningBacklogMs(): number {
    let backlogMs = 0;
    for (const node of this.#options.fleet) if (node.usable && node.link.freeCount === 0) backlogMs += node.link.freeInMs;
    return backlogMs;
  }

  #forget(ticket: Ticket): void {
    this.#waiters.delete(ticket);
    if (this.#options.queue.remove(ticket)) this.pump(); // bids may be too many now
  }

  #queueFull(): StatusError {
    const { queue, queueLimit } = this.#options;
    return new StatusError({
      code: Code.RESOURCE_EXHAUSTED,
      reason: Reason.QUEUE_FULL,
      message: `expected room among ${queueLimit} waiting requests, got ${queue.size} waiting already`,
      retryDelayMs: Math.max(500, this.#runningBacklogMs()),
      metadata: { limit: String(queueLimit), waiting: String(queue.size) },
    });
  }

  #queueTimeout(ticket: Ticket, waitedMs: number): StatusError {
    const { queue } = this.#options;
    const waited = String(Math.round(waitedMs));
    return new StatusError({
      code: Code.DEADLINE_EXCEEDED,
      reason: Reason.QUEUE_TIMEOUT,
      message: `no slot became free within ${waited} ms; place ${queue.position(ticket)} in the queue`,
      metadata: { position: String(queue.position(ticket)), waited_ms: waited },
      ...(ticket.lastError ? { cause: ticket.lastError } : {}),
    });
  }
}

function noNodes(ticket: Ticket, waitedMs: number): StatusError {
  return (
    ticket.lastError ??
    new StatusError({
      code: Code.UNAVAILABLE,
      reason: Reason.NO_NODES,
      message: `no node that serves ${ticket.work.model} is reachable; waited ${waitedMs} ms`,
      retryDelayMs: 1000,
    })
  );
}
