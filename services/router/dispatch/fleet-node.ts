/** One member of the fleet as the router sees it: its last beat, its line, its breaker. */
import type { Breaker } from '#breaker';
import type { Beat } from '#bus';
import type { Candidate } from '#scheduling';
import type { NodeLink } from './node-link.js';
import type { Ticket } from './ticket.js';

export interface FleetNodeOptions {
  readonly link: NodeLink;
  readonly breaker: Breaker;
  readonly beat: Beat;
  readonly zone: string;
}

export class FleetNode {
  readonly link: NodeLink;
  readonly breaker: Breaker;
  /** The newest word of this incarnation. */
  beat: Beat;
  beatAt: number;
  /** NATS has missed beats of it. */
  suspect = false;
  readonly #zone: string;
  #models: ReadonlySet<string>;

  constructor(options: FleetNodeOptions & { nowMs: number }) {
    this.link = options.link;
    this.breaker = options.breaker;
    this.beat = options.beat;
    this.beatAt = options.nowMs;
    this.#zone = options.zone;
    this.#models = namesOf(options.beat);
  }

  get nodeId(): string {
    return this.beat.nodeId;
  }

  /** Names one life of the node: what failed on it may work on its next. */
  get life(): string {
    return `${this.beat.nodeId}/${this.beat.incarnation}`;
  }

  /** Could be sent work now or as soon as a slot is free. */
  get usable(): boolean {
    return this.link.accepting && this.breaker.state === 'closed';
  }

  hear(beat: Beat, nowMs: number): void {
    this.beat = beat;
    this.beatAt = nowMs;
    this.#models = namesOf(beat);
  }

  serves(model: string): boolean {
    return this.#models.has(model);
  }

  /** May be called with this request now, a free slot provided. */
  canTake(ticket: Ticket): boolean {
    return this.usable && this.serves(ticket.work.model) && !ticket.tried.has(this.life);
  }

  candidate(runMs: number): Candidate {
    return {
      nodeId: this.nodeId,
      freeInMs: this.link.freeCount > 0 ? 0 : this.link.freeInMs,
      // After an ejection a node gets work again in a ramp: it looks slower than it is.
      runMs: runMs / this.breaker.weight,
      doubtful: this.suspect,
      sameZone: this.#zone !== '' && this.beat.zone === this.#zone,
    };
  }
}

function namesOf(beat: Beat): ReadonlySet<string> {
  return new Set(beat.models.map((model) => model.name));
}
