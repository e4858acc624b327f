/** One member of the fleet as the router sees it: its last beat, its line, its breaker. */
import type { Breaker } from '#breaker';
import type { Beat, Member, ModelReport } from '#bus';
import type { Candidate } from '#scheduling';
import type { NodeLink } from './node-link.js';
import type { Ticket } from './ticket.js';

export interface FleetNodeOptions {
  readonly link: NodeLink;
  readonly breaker: Breaker;
  /** Kept up to date by membership. */
  readonly member: Member;
  /** The router's own. */
  readonly zone: string;
  /** Whether the line to an earlier life was up. */
  readonly met: boolean;
}

export class FleetNode {
  readonly link: NodeLink;
  readonly breaker: Breaker;
  readonly member: Member;
  /** Names one life of the node: what failed on it may work on its next. The member itself moves on to the next life. */
  readonly life: string;
  /** Its line is or has been up, in this life or an earlier one: it is more than a voice on NATS. */
  met: boolean;
  readonly #zone: string;

  constructor(options: FleetNodeOptions) {
    this.link = options.link;
    this.breaker = options.breaker;
    this.member = options.member;
    this.life = `${options.member.nodeId}/${options.member.beat.incarnation}`;
    this.met = options.met;
    this.#zone = options.zone;
  }

  get nodeId(): string {
    return this.member.nodeId;
  }

  /** Its newest word. */
  get beat(): Beat {
    return this.member.beat;
  }

  /** Names its hardware; undefined where that is not known, as on a CPU. Parts of one GPU differ by their memory. */
  get device(): string | undefined {
    const { gpu } = this.beat;
    return gpu ? `${gpu.name} ${gpu.memoryTotalBytes}` : undefined;
  }

  /** Could be sent work now or as soon as a slot is free. */
  get usable(): boolean {
    return this.link.accepting && this.breaker.state === 'closed';
  }

  /** Nodes may know different revisions of one model: a LoRA may be new to some. */
  serves(ticket: Pick<Ticket, 'work' | 'revision' | 'loraNames'>): boolean {
    return this.#modelsFor(ticket).length > 0;
  }

  /** Predicted time until its model is loaded, milliseconds; 0 when it is. */
  loadMs(ticket: Pick<Ticket, 'work' | 'revision' | 'loraNames'>): number {
    const times = this.#modelsFor(ticket).map(loadMsOf);
    return times.length === 0 ? 0 : Math.min(...times);
  }

  /** What it says to have loaded may make room for something else before a request gets there. */
  get swapsModels(): boolean {
    return this.beat.models.some((model) => loadMsOf(model) > 0);
  }

  #modelsFor({ work, revision: wanted, loraNames }: Pick<Ticket, 'work' | 'revision' | 'loraNames'>): readonly ModelReport[] {
    return this.beat.models.filter(
      ({ name, revision, loras }) =>
        name === work.model &&
        (wanted === '' || revision === wanted) &&
        loraNames.every((needed) => loras.some((lora) => lora.name === needed)),
    );
  }

  /** May be called with this request now, a free slot provided. */
  canTake(ticket: Ticket): boolean {
    return this.usable && this.serves(ticket) && !ticket.tried.has(this.life);
  }

  candidate(ticket: Ticket, runMs: number): Candidate {
    return {
      nodeId: this.nodeId,
      freeInMs: this.link.freeCount > 0 ? 0 : this.link.freeInMs,
      loadMs: this.loadMs(ticket),
      // After an ejection a node gets work again in a ramp: it looks slower than it is.
      runMs: runMs / this.breaker.weight,
      doubtful: this.member.state !== 'alive',
      sameZone: this.#zone !== '' && this.beat.zone === this.#zone,
    };
  }
}

/** A load is never for nothing, however small its guess. */
export function loadMsOf({ loaded = true, loadMs = 0 }: ModelReport): number {
  return loaded ? 0 : Math.max(1, loadMs);
}
