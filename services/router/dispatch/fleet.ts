/**
 * All nodes this router knows: what NATS says of them, the line to each, and its breaker. NATS hints,
 * gRPC proves: a member that fell silent stays while its line is up; a member whose line is down gets
 * no work, whatever its beats say.
 */
import type { BreakerPool } from '#breaker';
import type { Beat } from '#bus';
import type { Clock, Emit } from '#core';
import type { ModelInfo } from '#model-package';
import type { RouterEvent } from '../events.js';
import { FleetNode } from './fleet-node.js';
import { NodeLink } from './node-link.js';
import type { Ticket } from './ticket.js';

export interface FleetOptions {
  readonly routerId: string;
  readonly zone: string;
  readonly clock: Clock;
  readonly keepaliveMs: number;
  readonly emit: Emit<RouterEvent>;
  readonly breakers: BreakerPool;
  /** Something changed that may let waiting work start. */
  readonly onChange: () => void;
  readonly onGrant: (node: FleetNode, leaseId: bigint) => void;
}

export interface ServedModel {
  readonly info: ModelInfo;
  readonly nodeCount: number;
}

export class Fleet {
  readonly #nodes = new Map<string, FleetNode>();
  /** Members NATS has given up; kept only while their line is up. */
  readonly #gone = new Set<string>();

  constructor(private readonly options: FleetOptions) {}

  [Symbol.iterator](): IterableIterator<FleetNode> {
    return this.#nodes.values();
  }

  get(nodeId: string): FleetNode | undefined {
    return this.#nodes.get(nodeId);
  }

  get size(): number {
    return this.#nodes.size;
  }

  /** A beat that membership has accepted as news. O(1). */
  hear(beat: Beat): void {
    this.#gone.delete(beat.nodeId);
    const known = this.#nodes.get(beat.nodeId);
    if (known?.beat.incarnation === beat.incarnation && known.beat.address === beat.address) {
      const servedBefore = known.beat.models.length;
      known.hear(beat, this.options.clock.now());
      if (known.suspect || servedBefore !== beat.models.length) {
        known.suspect = false;
        this.options.onChange();
      }
      return;
    }
    if (known) {
      known.link.close();
      known.breaker.reset();
    }
    this.#add(beat);
  }

  suspect(nodeId: string): void {
    const node = this.#nodes.get(nodeId);
    if (node) node.suspect = true;
  }

  /** Ten beats missed. The line decides whether that is true. */
  gone(nodeId: string): void {
    const node = this.#nodes.get(nodeId);
    if (!node) return;
    if (node.link.connected) this.#gone.add(nodeId);
    else this.#drop(node, 'silent on NATS and not reachable');
  }

  /** It said goodbye. */
  left(nodeId: string): void {
    const node = this.#nodes.get(nodeId);
    if (node) this.#drop(node, 'left');
  }

  /** May be called with this request now or as soon as a slot is free. */
  eligible(ticket: Ticket): FleetNode[] {
    return [...this.#nodes.values()].filter((node) => node.canTake(ticket));
  }

  /** Somebody may serve it, now or after recovering. */
  couldServe(ticket: Ticket): boolean {
    for (const node of this.#nodes.values()) if (node.serves(ticket.work.model) && !ticket.tried.has(node.life)) return true;
    return false;
  }

  /** Idle slots that may be called. */
  idleCount(): number {
    let count = 0;
    for (const node of this.#nodes.values()) if (node.usable) count += node.link.freeCount;
    return count;
  }

  /** Slots of nodes that take work. */
  slotCount(): number {
    let count = 0;
    for (const node of this.#nodes.values()) if (node.usable) count += node.link.slotCount;
    return count;
  }

  /** By name; where nodes disagree about a model, the newest revision speaks. */
  models(): Map<string, ServedModel> {
    const served = new Map<string, ServedModel>();
    for (const node of this.#nodes.values()) {
      for (const info of node.beat.models) {
        const known = served.get(info.name);
        const newest = known && known.info.revision >= info.revision ? known.info : info;
        served.set(info.name, { info: newest, nodeCount: (known?.nodeCount ?? 0) + 1 });
      }
    }
    return served;
  }

  close(): void {
    for (const node of this.#nodes.values()) node.link.close();
    this.#nodes.clear();
    this.options.breakers.close();
  }

  #add(beat: Beat): void {
    const { breakers, clock, emit, keepaliveMs, routerId, zone, onChange, onGrant } = this.options;
    const { nodeId, address, incarnation } = beat;
    let announced = false;
    const link = new NodeLink({
      routerId,
      address,
      clock,
      keepaliveMs,
      onChange: () => {
        if (link.connected && !announced) {
          emit({ type: 'nodeConnected', nodeId, address });
          node.breaker.recheck();
        }
        announced = link.connected;
        onChange();
      },
      onLost: (reason) => {
        emit({ type: 'nodeLost', nodeId, reason });
        if (this.#gone.has(nodeId)) this.#drop(node, 'silent on NATS and its line is lost');
      },
      onGrant: (leaseId) => onGrant(node, leaseId),
    });
    const node = new FleetNode({ link, breaker: breakers.of(nodeId), beat, zone, nowMs: clock.now() });
    this.#nodes.set(nodeId, node);
    emit({ type: 'nodeAdded', nodeId, address, incarnation });
  }

  #drop(node: FleetNode, reason: string): void {
    this.#nodes.delete(node.nodeId);
    this.#gone.delete(node.nodeId);
    this.options.breakers.forget(node.nodeId);
    node.link.close();
    this.options.emit({ type: 'nodeRemoved', nodeId: node.nodeId, reason });
    this.options.onChange();
  }
}
