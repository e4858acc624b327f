/**
 * All nodes this router knows: what NATS says of them, the line to each, and its breaker. NATS hints,
 * gRPC proves: a member that fell silent stays while its line is up; a member whose line is down gets
 * no work, whatever its beats say.
 */
import type { BreakerPool } from '#breaker';
import type { Member, MembershipEvent } from '#bus';
import type { Clock, Emit, Random } from '#core';
import type { ModelInfo } from '#model-package';
import type { CostModel, Preemption } from '#scheduling';
import type { RouterEvent } from '../events.js';
import { FleetNode, loadMsOf } from './fleet-node.js';
import { NodeLink, type NodeLinkOptions, type Served } from './node-link.js';
import type { Ticket } from './ticket.js';
import { Turns } from './turns.js';

export interface FleetOptions {
  readonly routerId: string;
  readonly zone: string;
  readonly clock: Clock;
  readonly random: Random;
  /** Of the lines to nodes. */
  readonly link: Pick<NodeLinkOptions, 'connectTimeoutMs' | 'keepaliveMs' | 'tls'>;
  readonly emit: Emit<RouterEvent>;
  readonly breakers: BreakerPool;
  readonly cost: CostModel;
  /** What gRPC proves of a node, for membership: its line is up, or lost. */
  readonly evidence: (nodeId: string, reachable: boolean) => void;
  /** Something changed that may let waiting work start. */
  readonly onChange: () => void;
  readonly onGrant: (node: FleetNode, leaseId: bigint, preemption: Preemption | undefined) => void;
  readonly onServed: (served: Served) => void;
}

export interface ServedModel {
  readonly info: ModelInfo;
  /** Those that are not gone. */
  readonly nodeCount: number;
  /** Of these, those that have it loaded. */
  readonly loadedCount: number;
  /** The least that others need to load it, predicted; 0 when there are none. Milliseconds. */
  readonly loadMs: number;
}

/** A model under its name; where nodes disagree about it, the newest revision speaks. */
export interface NamedModel extends ServedModel {
  readonly byRevision: ReadonlyMap<string, ServedModel>;
}

const SAMPLE_COUNT = 64;
/**
 * Nodes that a turn of the event loop connects to, at some three milliseconds of CPU each: a router that meets a thousand of them
 * at once, at its start or when NATS is back, answers callers meanwhile.
 */
const CONNECTING_COUNT = 4;

export class Fleet {
  readonly #nodes = new Map<string, FleetNode>();
  /** The same, made at the first question after a change. */
  #list: FleetNode[] | undefined;
  readonly #awaitingModels = new Set<() => void>();
  readonly #connecting = new Turns(CONNECTING_COUNT);
  /** Worked out at the first question after a change; asked at every admission. */
  #models: Map<string, NamedModel> | undefined;

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

  /** Follows the membership: what NATS says of nodes. Plain beats need no call; a Member shows its newest one. */
  follow(event: MembershipEvent): void {
    switch (event.type) {
      case 'memberJoined':
        return this.#add(event.member);
      case 'memberRestarted':
        this.#nodes.get(event.member.nodeId)?.link.close();
        this.options.breakers.of(event.member.nodeId).reset();
        this.options.cost.judgeAnew(event.member.nodeId);
        return this.#add(event.member);
      case 'memberChanged': {
        const node = this.#nodes.get(event.member.nodeId);
        if (event.aspects.includes('address')) {
          node?.link.close();
          return this.#add(event.member);
        }
        if (event.aspects.includes('models')) this.#modelsChanged();
        return event.aspects.includes('models') ? this.options.onChange() : undefined;
      }
      case 'memberRecovered':
      case 'memberGone':
        this.#modelsChanged();
        return this.options.onChange();
      case 'memberLeft':
        return this.#drop(event.member.nodeId, 'left');
      case 'memberForgotten':
        return this.#drop(event.member.nodeId, 'silent on NATS and not reachable');
      default: // suspicion is read from the member when a node is chosen; the rest is for the log
    }
  }

  /**
   * Who may be called with this request now or as soon as a slot is free: everybody in a small mesh, SAMPLE_COUNT
   * idle and as many busy ones in a large one, and of those that would have to load its model as many again. The
   * best of so many random ones is nearly the best of all (power of choices: Mitzenmacher, 2001), at a price that
   * does not grow with the mesh; and routers that ask at the same time do not all fall on the same node.
   */
  candidates(ticket: Ticket): FleetNode[] {
    this.#list ??= [...this.#nodes.values()];
    const from = Math.floor(this.options.random() * this.#list.length);
    const chosen: FleetNode[] = [];
    const counts = { loaded: { idle: 0, busy: 0 }, unloaded: { idle: 0, busy: 0 } };
    const isEnough = () => counts.loaded.idle >= SAMPLE_COUNT && counts.loaded.busy >= SAMPLE_COUNT;
    for (let i = 0; i < this.#list.length && !isEnough(); i++) {
      const node = this.#list[(from + i) % this.#list.length] as FleetNode;
      const state = node.link.freeCount > 0 ? 'idle' : 'busy';
      // Enough that have it loaded: nobody needs to be asked who would have to load it. Most of an idle mesh is passed over here.
      if (counts.loaded[state] >= SAMPLE_COUNT || !node.usable) continue;
      const count = counts[node.loadMs(ticket) > 0 ? 'unloaded' : 'loaded'];
      if (count[state] >= SAMPLE_COUNT || !node.canTake(ticket)) continue;
      chosen.push(node);
      count[state]++;
    }
    return chosen;
  }

  /**
   * Somebody may serve it, now or after recovering. A node that was never reached is a promise of nobody's, and one
   * that drains will not take it in this life.
   */
  couldServe(ticket: Ticket): boolean {
    for (const node of this.#nodes.values()) {
      if (!node.met || node.member.state === 'gone' || node.beat.draining) continue;
      if (node.serves(ticket) && !ticket.tried.has(node.life)) return true;
    }
    return false;
  }

  /** Nodes that would serve it if they did not drain. */
  drainingCount(ticket: Ticket): number {
    let count = 0;
    for (const node of this.#nodes.values()) if (node.beat.draining && node.serves(ticket)) count++;
    return count;
  }

  /** Whether more idle slots than this may be called. */
  hasIdleBeyond(count: number): boolean {
    let idleCount = 0;
    for (const node of this.#nodes.values()) {
      if (node.link.freeCount > 0 && node.usable) idleCount += node.link.freeCount;
      if (idleCount > count) return true;
    }
    return false;
  }

  /** Slots of nodes that take work. */
  slotCount(): number {
    let count = 0;
    for (const node of this.#nodes.values()) if (node.usable) count += node.link.slotCount;
    return count;
  }

  /** By name, those of silent nodes included. Anybody can say on NATS to be a node: only those that were reached count. */
  models(): ReadonlyMap<string, NamedModel> {
    this.#models ??= this.#collectModels();
    return this.#models;
  }

  /** Of one revision, or of any when that is ''. */
  model(name: string, revision: string): ServedModel | undefined {
    const named = this.models().get(name);
    return revision === '' ? named : named?.byRevision.get(revision);
  }

  /** Whether somebody would start it now, or as soon as a slot is free. */
  takes(name: string, revision: string, besides?: FleetNode): boolean {
    for (const node of this.#nodes.values()) {
      if (
        node !== besides &&
        node.usable &&
        node.beat.models.some((info) => info.name === name && (revision === '' || info.revision === revision))
      )
        return true;
    }
    return false;
  }

  /** Some node says to serve it, and the line to it has not been up yet. */
  announces(modelName: string): boolean {
    for (const { beat, member, met } of this.#nodes.values()) {
      if (met || member.state === 'gone') continue;
      if (beat.models.some(({ name }) => name === modelName)) return true;
    }
    return false;
  }

  /** Calls back once, at the next change of what is served. Returns what takes that back. */
  onceModelsChange(callback: () => void): () => void {
    this.#awaitingModels.add(callback);
    return () => void this.#awaitingModels.delete(callback);
  }

  close(): void {
    for (const node of this.#nodes.values()) node.link.close();
    this.#nodes.clear();
    this.#list = undefined;
    this.options.breakers.close();
  }

  #modelsChanged(): void {
    this.#models = undefined;
    const callbacks = [...this.#awaitingModels];
    this.#awaitingModels.clear();
    for (const callback of callbacks) callback();
  }

  #collectModels(): Map<string, NamedModel> {
    const revisions = new Map<string, Map<string, ServedModel>>();
    for (const { member, met } of this.#nodes.values()) {
      if (!met) continue;
      for (const info of member.beat.models) {
        const ofName = revisions.get(info.name) ?? new Map<string, ServedModel>();
        revisions.set(info.name, ofName);
        const here = member.state === 'gone' ? 0 : 1;
        const loadMs = here * loadMsOf(info);
        const own = { info, nodeCount: here, loadedCount: loadMs > 0 ? 0 : here, loadMs };
        ofName.set(info.revision, together([own, ofName.get(info.revision)], own));
      }
    }
    const served = new Map<string, NamedModel>();
    for (const [name, ofName] of revisions) {
      const all = [...ofName.values()].sort((a, b) => byRevision(b.info, a.info));
      if (all[0]) served.set(name, { ...together(all, all[0]), byRevision: ofName });
    }
    return served;
  }

  #add(member: Member): void {
    const { breakers, clock, emit, evidence, routerId, zone, onChange, onGrant, onServed } = this.options;
    const { nodeId } = member;
    const { address, incarnation } = member.beat;
    let announced = false;
    const link = new NodeLink({
      routerId,
      address,
      clock,
      ...this.options.link,
      turn: () => this.#connecting.next(),
      onChange: () => {
        if (link.connected && !announced) {
          emit({ type: 'nodeConnected', nodeId, address });
          evidence(nodeId, true);
          this.#meet(node);
          node.breaker.recheck();
        }
        announced = link.connected;
        onChange();
      },
      onLost: (reason) => {
        emit({ type: 'nodeLost', nodeId, reason });
        evidence(nodeId, false);
      },
      onUnreached: (reason) => emit({ type: 'nodeUnreached', nodeId, address, reason }),
      onGrant: (leaseId, preemption) => onGrant(node, leaseId, preemption),
      onServed,
    });
    // Another life or address of a node we know: away for a moment, not a stranger.
    const met = this.#nodes.get(nodeId)?.met ?? false;
    const node = new FleetNode({ link, breaker: breakers.of(nodeId), member, zone, met });
    this.#nodes.set(nodeId, node);
    this.#list = undefined;
    this.#modelsChanged();
    emit({ type: 'nodeAdded', nodeId, address, incarnation });
  }

  #meet(node: FleetNode): void {
    if (node.met) return;
    node.met = true;
    this.#modelsChanged();
  }

  #drop(nodeId: string, reason: string): void {
    const node = this.#nodes.get(nodeId);
    if (!node) return;
    this.#nodes.delete(nodeId);
    this.#list = undefined;
    this.#modelsChanged();
    this.options.breakers.forget(nodeId);
    this.options.cost.forget(nodeId);
    node.link.close();
    this.options.emit({ type: 'nodeRemoved', nodeId, reason });
    this.options.onChange();
  }
}

function together(all: readonly (ServedModel | undefined)[], { info }: ServedModel): ServedModel {
  const counted = all.filter((each) => each !== undefined);
  const loads = counted.map(({ loadMs }) => loadMs).filter((ms) => ms > 0);
  return {
    info,
    nodeCount: counted.reduce((sum, each) => sum + each.nodeCount, 0),
    loadedCount: counted.reduce((sum, each) => sum + each.loadedCount, 0),
    loadMs: loads.length === 0 ? 0 : Math.min(...loads),
  };
}

/** "10" is newer than "9". */
function byRevision(a: ModelInfo, b: ModelInfo): number {
  return a.revision.localeCompare(b.revision, 'en', { numeric: true });
}
