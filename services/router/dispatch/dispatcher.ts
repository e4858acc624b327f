/**
 * Who runs next, and where? All waiting requests stand in one queue. A request starts when a node has
 * an idle slot (it is simply called) or when a busy node grants the slot that frees to our bid. Work
 * is bound to a node at the last moment (late binding), so an urgent request never waits behind one
 * that was placed early, and nothing is stranded when a node dies.
 */
import type { Permit } from '#breaker';
import { type Clock, Code, type Emit, Reason, StatusError } from '#core';
import {
  type Candidate,
  type CostModel,
  type Lease,
  type LeaseTable,
  mayUse,
  nextStart,
  type Placement,
  type Preemption,
  place,
  type Service,
  type Start,
  type StartOptions,
  type WaitQueue,
} from '#scheduling';
import type { RouterEvent } from '../events.js';
import { Bidder } from './bidder.js';
import type { Fleet } from './fleet.js';
import type { FleetNode } from './fleet-node.js';
import { startClock } from './forecast.js';
import { type QueueLimits, shed } from './load-shed.js';
import { kindOf, needsOf, type Ticket } from './ticket.js';

/** A node's slot, ours until released. */
export interface Slot {
  readonly node: FleetNode;
  /** Of the node's grant; undefined when an idle slot is called. */
  readonly grantId: bigint | undefined;
  readonly permit: Permit;
  readonly predictedMs: number;
  /** Before that: until the node has loaded the model; 0 when it has. */
  readonly loadMs: number;
  readonly lease: Lease;
  /** What this counts as against shares and fairness. */
  readonly service: Service;
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
  readonly limits: QueueLimits;
}

interface Waiter {
  readonly ticket: Ticket;
  readonly resolve: (slot: Slot) => void;
  readonly reject: (error: StatusError) => void;
  /** Since when the load that would be made for it has been put off. */
  putOffAt: number | undefined;
  /** Since when nobody could take it; undefined while somebody could. */
  strandedAt: number | undefined;
  told: number;
}

/** A refusal for the deadline leaves this long before it, so that the details reach the caller, also on a busy machine. */
const DEADLINE_MARGIN_MS = 60;
/** How often waiting requests are looked over: stranded ones, and positions to report. */
const SWEEP_MS = 200;

export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #bidder: Bidder;
  readonly #waiters = new Map<Ticket, Waiter>();
  #pumpScheduled = false;
  #pumpSoonScheduled = false;
  #cancelSweep: (() => void) | undefined;
  #places: { readonly at: number; readonly of: ReadonlyMap<Ticket, number> } = { at: Number.NEGATIVE_INFINITY, of: new Map() };

  constructor(options: DispatcherOptions) {
    this.#options = options;
    this.#bidder = new Bidder(options);
  }

  /** Requests waiting for a slot. */
  get waitingCount(): number {
    return this.#options.queue.size;
  }

  /** Who waits for a slot, in no order. */
  get waiting(): Iterable<Ticket> {
    return this.#waiters.keys();
  }

  /**
   * Waits for a slot. Rejects with QUEUE_FULL, DEADLINE_UNREACHABLE, QUEUE_TIMEOUT, NO_NODES, or the
   * signal's reason. A returning request (a retry) keeps its place and is never refused for a full queue.
   */
  acquire(ticket: Ticket, signal: AbortSignal): Promise<Slot> {
    const { clock, queue, queueTimeoutMs } = this.#options;
    const refused = ticket.lastError === undefined ? shed(ticket, this.#options) : undefined;
    if (refused?.who === ticket) return Promise.reject(refused.error);
    if (refused) this.#waiters.get(refused.who)?.reject(refused.error);
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
        putOffAt: undefined,
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

  /** An idle slot for a request that runs elsewhere already, unless somebody waits for it; counted as another `service`. */
  takeIdle(ticket: Ticket, { besides, service }: { besides: FleetNode; service: Service }): Slot | undefined {
    const { clock, cost, fleet, queue } = this.#options;
    const idle = fleet.candidates(ticket).filter((node) => node !== besides && node.link.freeCount > 0);
    const weighedMs = cost.weigher(ticket.work);
    const placement = place(idle.map((node) => node.candidate(ticket, weighedMs(node.nodeId))));
    const node = placement?.kind === 'start' ? fleet.get(placement.on.nodeId) : undefined;
    if (!node || queue.first((waiting) => node.canTake(waiting))) return undefined;
    const inTime = clock.now() + node.loadMs(ticket) + cost.predictMs(node.nodeId, ticket.work) < ticket.deadlineAt;
    const permit = inTime ? node.breaker.admit() : undefined;
    if (!permit) return undefined;
    node.link.takeFree();
    queue.served(service);
    return this.#slotOf(ticket, { node, permit, grantId: undefined, service });
  }

  /** Gives a slot back. Whatever comes late for it changes nothing any more. */
  release(slot: Slot): void {
    if (this.#options.leases.release(slot.lease)) this.pump();
  }

  /** Looks for work that can start. What happens in one turn of the event loop is one look. */
  pump(): void {
    if (this.#pumpScheduled) return;
    this.#pumpScheduled = true;
    queueMicrotask(() => {
      this.#pumpScheduled = false;
      this.#startOnIdleNodes();
      this.#bidder.bidInTime();
    });
  }

  /** The same after all news that have come by now: a thousand nodes say a lot at once. */
  pumpSoon(): void {
    if (this.#pumpSoonScheduled) return;
    this.#pumpSoonScheduled = true;
    setImmediate(() => {
      this.#pumpSoonScheduled = false;
      this.pump();
    });
  }

  /** A node grants its next slot: it goes to whatever is our best request now, of those that another is paused for. */
  onGrant(node: FleetNode, grantId: bigint, preemption: Preemption | undefined): void {
    const ticket = this.#next({
      fits: (waiting) => (preemption === undefined || mayUse(waiting, preemption)) && node.canTake(waiting),
      placementOf: (waiting) => this.#placementOn(waiting, node, preemption),
    })?.entry;
    const permit = ticket && node.breaker.admit();
    if (ticket && permit) this.#start(ticket, node, permit, grantId);
    else node.link.decline(grantId);
    this.pump();
  }

  close(): void {
    this.#cancelSweep?.();
    this.#bidder.close();
    for (const waiter of [...this.#waiters.values()]) {
      waiter.reject(new StatusError({ code: Code.UNAVAILABLE, reason: Reason.DRAINING, message: 'this router is stopping; call another' }));
    }
  }

  #startOnIdleNodes(): void {
    const { fleet, queue } = this.#options;
    if (queue.size === 0) return;
    const idle = new Set<FleetNode>();
    for (const node of fleet) if (node.link.freeCount > 0 && node.usable) idle.add(node);
    const refused = new Set<string>();
    while (idle.size > 0) {
      const taken = new Map<string, boolean>();
      const next = this.#next({
        fits: (waiting) => !refused.has(kindOf(waiting)) && anyCanTake(idle, waiting, taken),
        placementOf: (waiting) => place(this.#candidates(waiting)),
      });
      if (!next) return;
      const node = fleet.get(next.on.nodeId);
      const permit = node?.breaker.admit();
      if (!node || !permit) {
        refused.add(kindOf(next.entry));
        continue;
      }
      node.link.takeFree();
      if (node.link.freeCount === 0) idle.delete(node);
      this.#start(next.entry, node, permit, undefined);
    }
  }

  #next(by: Pick<StartOptions<Ticket>, 'fits' | 'placementOf'>): Start<Ticket> | undefined {
    const nowMs = this.#options.clock.now();
    return nextStart(this.#options.queue, {
      ...by,
      kindOf,
      modelOf: ({ work }) => work.model,
      mayPutOff: ({ entry, on }) => {
        const waiter = this.#waiters.get(entry);
        if (waiter) waiter.putOffAt ??= nowMs;
        return nowMs - (waiter?.putOffAt ?? 0) < Math.max(on.loadMs, on.runMs);
      },
    });
  }

  #candidates(ticket: Ticket, besides?: FleetNode): Candidate[] {
    const { cost, fleet } = this.#options;
    const weighedMs = cost.weigher(ticket.work);
    const nodes = fleet.candidates(ticket).filter((node) => node !== besides);
    return nodes.map((node) => node.candidate(ticket, weighedMs(node.nodeId)));
  }

  /** Whether it should run on the granted slot: undefined when it would be finished sooner elsewhere. */
  #placementOn(ticket: Ticket, granted: FleetNode, preemption: Preemption | undefined): Placement | undefined {
    const runMs = this.#options.cost.weigher(ticket.work)(granted.nodeId);
    const own = { ...granted.candidate(ticket, runMs), freeInMs: 0 };
    // Nobody is paused for a load: the call would only wait in his place.
    if (preemption && own.loadMs > 0) return undefined;
    // An idle node would do as well, but for a load.
    const others = this.#candidates(ticket, granted).filter(({ freeInMs }) => freeInMs > 0 || own.loadMs > 0);
    const placement = place([own, ...others]);
    const best = placement?.kind === 'start' ? placement.on : placement?.or;
    return best === own ? placement : undefined;
  }

  #start(ticket: Ticket, node: FleetNode, permit: Permit, grantId: bigint | undefined): void {
    const { queue, emit } = this.#options;
    const waiter = this.#waiters.get(ticket);
    if (!waiter) return; // left between two lines of the same turn: cannot happen, and must not start work for nobody
    const service = queue.take(ticket);
    if (!service) return;
    this.#waiters.delete(ticket);
    waiter.resolve(this.#slotOf(ticket, { node, permit, grantId, service }));
    emit({
      type: 'dispatched',
      requestId: ticket.requestId,
      nodeId: node.nodeId,
      queuedMs: ticket.queuedMs,
      granted: grantId !== undefined,
    });
  }

  #slotOf(ticket: Ticket, taken: Pick<Slot, 'node' | 'permit' | 'grantId' | 'service'>): Slot {
    const { clock, cost, leases } = this.#options;
    const { nodeId } = taken.node;
    const predictedMs = cost.predictMs(nodeId, ticket.work);
    const loadMs = taken.node.loadMs(ticket);
    const startedAt = clock.now();
    const expectedEndAt = startedAt + loadMs + predictedMs;
    const lease = leases.take({ nodeId, requestId: ticket.requestId, startedAt, expectedEndAt });
    return { ...taken, predictedMs, loadMs, lease };
  }

  #sweepSoon(): void {
    this.#cancelSweep ??= this.#options.clock.schedule(SWEEP_MS, () => {
      this.#cancelSweep = undefined;
      this.#sweep();
      if (this.#waiters.size > 0) this.#sweepSoon();
    });
  }

  #sweep(): void {
    const { clock, queue } = this.#options;
    queue.promote(clock.now());
    this.#refuseStranded();
    this.#tellPlaces();
    this.pump();
  }

  /** Requests that no node could ever take, for longer than is allowed. */
  #refuseStranded(): void {
    const { clock, fleet, noNodesWaitMs } = this.#options;
    const served = new Map<string, boolean>();
    for (const waiter of [...this.#waiters.values()]) {
      const { ticket } = waiter;
      const needs = needsOf(ticket);
      const could = served.get(needs) ?? fleet.couldServe(ticket);
      served.set(needs, could);
      if (could) waiter.strandedAt = undefined;
      else {
        waiter.strandedAt ??= clock.now();
        if (clock.now() - waiter.strandedAt >= noNodesWaitMs) waiter.reject(noNodes(ticket, noNodesWaitMs, fleet.drainingCount(ticket)));
      }
    }
  }

  #tellPlaces(): void {
    const { fleet, queue } = this.#options;
    if (![...this.#waiters.values()].some(({ ticket }) => ticket.onQueued)) return;
    const startsInMs = startClock(fleet);
    let aheadMs = 0;
    let position = 0;
    for (const ticket of queue) {
      position++;
      const etaMs = startsInMs(aheadMs) + ticket.costMs;
      aheadMs += ticket.costMs;
      const waiter = this.#waiters.get(ticket);
      if (!waiter || !ticket.onQueued || waiter.told === position) continue;
      waiter.told = position;
      ticket.onQueued(position, etaMs);
    }
  }

  #forget(ticket: Ticket): void {
    this.#waiters.delete(ticket);
    if (this.#options.queue.remove(ticket)) this.pump(); // bids may be too many now
  }

  /** 1 is next. Of a moment ago where many ask at once: the order of thousands is not worked out for each of them. */
  #positionOf(ticket: Ticket): number {
    const { clock, queue } = this.#options;
    const isNew = this.#waiters.has(ticket) && !this.#places.of.has(ticket);
    if (isNew || clock.now() - this.#places.at > SWEEP_MS) {
      this.#places = { at: clock.now(), of: new Map([...queue].map((waiting, i) => [waiting, i + 1])) };
    }
    return this.#places.of.get(ticket) ?? 0;
  }

  #queueTimeout(ticket: Ticket, waitedMs: number): StatusError {
    const position = this.#positionOf(ticket);
    const waited = String(Math.round(waitedMs));
    return new StatusError({
      code: Code.DEADLINE_EXCEEDED,
      reason: Reason.QUEUE_TIMEOUT,
      message: `no slot became free within ${waited} ms; place ${position} in the queue`,
      metadata: { position: String(position), waited_ms: waited },
      ...(ticket.lastError ? { cause: ticket.lastError } : {}),
    });
  }
}

function noNodes(ticket: Ticket, waitedMs: number, drainingCount: number): StatusError {
  return (
    ticket.lastError ??
    new StatusError({
      code: Code.UNAVAILABLE,
      reason: Reason.NO_NODES,
      message: `no node takes ${ticket.work.model} (${drainingCount} of those that serve it drain); waited ${waitedMs} ms`,
      retryDelayMs: 1000,
    })
  );
}

/** `known`: the answers so far, by what is needed. */
function anyCanTake(nodes: ReadonlySet<FleetNode>, ticket: Ticket, known: Map<string, boolean>): boolean {
  const needs = needsOf(ticket);
  const can = known.get(needs) ?? [...nodes].some((node) => node.canTake(ticket));
  known.set(needs, can);
  return can;
}
