/**
 * Which jobs would only be turned away now? The router said so of one like them: no node has their model, their class
 * is full, their tenant has had its share, or no router is there at all. The way is barred for a pause that grows;
 * then one job goes first and finds out, and all follow when it gets through.
 *
 * Pure: time comes in as an argument.
 */
import type { Random } from '#core';
import type { Priority } from '#scheduling';
import { pauseMs, type Scope } from '../domain/failures.js';

/** Only one job's own pause is not shared: whoever runs it keeps that. */
export type SharedScope = Exclude<Scope, 'job'>;

/** What of a job decides whom it shares its fate with. */
export interface Passer {
  readonly key: string;
  readonly tenant: string;
  readonly priority: Priority;
  /** As asked for: perhaps a route. */
  readonly model: string;
}

interface Gate {
  /** Refusals in a row. */
  times: number;
  opensAt: number;
  /** Who has gone to find out. */
  scout: string | undefined;
}

export class Gates {
  readonly #gates = new Map<string, Gate>();

  constructor(private readonly random: Random) {}

  /** Whether it may go now. */
  isOpen(job: Passer, now: number): boolean {
    return namesOf(job).every((name) => {
      const gate = this.#gates.get(name);
      return !gate || (now >= gate.opensAt && (gate.scout === undefined || gate.scout === job.key));
    });
  }

  /** It goes: where the way was barred it is the one who finds out. */
  pass(job: Passer): void {
    for (const name of namesOf(job)) {
      const gate = this.#gates.get(name);
      if (gate) gate.scout = job.key;
    }
  }

  /** A router has it in its queue: only whether its model has nodes is not found out yet. */
  queued(job: Passer): void {
    const ofModel = nameOf(job, 'model');
    for (const name of namesOf(job)) if (name !== ofModel) this.#gates.delete(name);
  }

  /** A node draws it. */
  begun(job: Passer): void {
    for (const name of namesOf(job)) this.#gates.delete(name);
  }

  /** It goes no further: another may find out. */
  ended(job: Passer): void {
    for (const name of namesOf(job)) {
      const gate = this.#gates.get(name);
      if (gate?.scout === job.key) gate.scout = undefined;
    }
  }

  /** It was turned away. `leastMs`: how long the router asked to stay away. For how long it is; undefined: that is known. */
  refused(job: Passer, scope: SharedScope, { now, leastMs = 0 }: { now: number; leastMs?: number | undefined }): number | undefined {
    const name = nameOf(job, scope);
    const gate = this.#gates.get(name) ?? { times: 0, opensAt: 0, scout: undefined };
    this.#gates.set(name, gate);
    // Those that went together are told together: that is one refusal.
    if (now < gate.opensAt) return undefined;
    gate.times += 1;
    const shutMs = Math.max(leastMs, pauseMs(gate.times, this.random));
    gate.opensAt = now + shutMs;
    gate.scout = undefined;
    return shutMs;
  }

  /** The world has changed, such as by a new node: it may be tried at once, whoever waits for an answer already. */
  open(): void {
    for (const gate of this.#gates.values()) {
      gate.opensAt = 0;
      gate.scout = undefined;
    }
  }

  /** When the next one opens, clock milliseconds; undefined: none is shut. */
  nextOpensAt(now: number): number | undefined {
    let next: number | undefined;
    for (const { opensAt } of this.#gates.values()) if (opensAt > now) next = Math.min(next ?? opensAt, opensAt);
    return next;
  }
}

/** Equal for all jobs that share their fate in this. */
export function nameOf(job: Passer, scope: Scope): string {
  switch (scope) {
    case 'job':
      return `job ${job.key}`;
    case 'all':
      return 'all';
    case 'model':
      return `model ${job.model}`;
    case 'class':
      return `class ${job.priority}`;
    case 'tenant':
      return `tenant ${job.tenant}`;
    default:
      return scope satisfies never;
  }
}

/** Whatever it may share with others. */
export function namesOf(job: Passer): string[] {
  return (['all', 'model', 'class', 'tenant'] as const).map((scope) => nameOf(job, scope));
}
