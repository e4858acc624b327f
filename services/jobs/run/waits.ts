/**
 * Why does a job wait that could be drawn by now? What a router answered to it or to one like it, as the replica that
 * owns it told on NATS. Most jobs that wait for a node were never tried: one finds out for all (gates.ts). So this
 * is kept for whom it holds, and not in the records: each try would be a write of every one of them.
 *
 * What a replica told holds for its own jobs. Who is away says nothing: what is old is dropped.
 */

import type { Scope } from '../domain/failures.js';
import type { Failure } from '../domain/job.js';
import { nameOf, namesOf, type Passer } from './gates.js';

export interface Wait {
  readonly failure: Failure;
  /** Milliseconds since 1970. In the past: it is tried now. */
  readonly nextAttemptAtMs: number;
}

export interface WaitsOptions {
  readonly wallNow: () => number;
  /** Which replica looks after a job, by the key of its record. */
  readonly ownerOf: (key: string) => string | undefined;
}

/** After its next try was due. A try ends within this, or a router has the job in its queue. */
const STALE_AFTER_MS = 60_000;

export class Waits {
  readonly #options: WaitsOptions;
  /** By who told it and for whom, told longest ago first. */
  readonly #waits = new Map<string, Wait>();
  readonly #listeners = new Set<() => void>();

  constructor(options: WaitsOptions) {
    this.#options = options;
  }

  /** Undefined: it waits for its turn. Another object whenever it was told anew. */
  of(job: Passer): Wait | undefined {
    if (this.#waits.size === 0) return undefined;
    const waits = [nameOf(job, 'job'), ...namesOf(job)].map((name) => this.#waits.get(this.#of(job, name)));
    return waits.find((wait) => wait && !this.#isStale(wait));
  }

  /** It was turned away, and with it all whom the scope names. */
  turnedAway(job: Passer, scope: Scope, wait: Wait): void {
    for (const [name, oldest] of this.#waits) {
      if (!this.#isStale(oldest)) break;
      this.#waits.delete(name);
    }
    const name = this.#of(job, nameOf(job, scope));
    this.#waits.delete(name);
    this.#waits.set(name, wait);
    this.#tell();
  }

  /** A router has it in its queue: only whether its model has nodes is not found out yet. */
  queued(job: Passer): void {
    const ofModel = nameOf(job, 'model');
    this.#clear(
      job,
      [nameOf(job, 'job'), ...namesOf(job)].filter((name) => name !== ofModel),
    );
  }

  /** A node draws it. */
  begun(job: Passer): void {
    this.#clear(job, [nameOf(job, 'job'), ...namesOf(job)]);
  }

  /** Told whenever something was told or is over. Returns what ends it. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  #of({ key }: Passer, name: string): string {
    return `${this.#options.ownerOf(key)} ${name}`;
  }

  #isStale({ nextAttemptAtMs }: Wait): boolean {
    return this.#options.wallNow() - nextAttemptAtMs > STALE_AFTER_MS;
  }

  #clear(job: Passer, names: readonly string[]): void {
    if (this.#waits.size === 0) return;
    const cleared = names.filter((name) => this.#waits.delete(this.#of(job, name)));
    if (cleared.length > 0) this.#tell();
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}
