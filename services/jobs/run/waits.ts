/**
 * Why does a job wait that could be drawn by now? What a router answered to it or to one like it, as the replica that
 * owns it told on NATS. Most jobs that wait for a node were never tried: one finds out for all (gates.ts). So this
 * is kept for whom it holds, and not in the records: each try would be a write of every one of them.
 *
 * What a replica told holds for its own jobs. Who is away says nothing: what is old is dropped.
 */
import type { Clock } from '#core';
import type { Scope } from '../domain/failures.js';
import type { Failure } from '../domain/job.js';
import { nameOf, namesOf, type Passer } from './gates.js';

export interface Wait {
  readonly failure: Failure;
  /** Milliseconds since 1970. In the past: it is tried now. */
  readonly nextAttemptAtMs: number;
}

export interface WaitsOptions {
  readonly clock: Clock;
  readonly wallNow: () => number;
  /** Which replica looks after a job, by the key of its record. */
  readonly ownerOf: (key: string) => string | undefined;
}

/** After its next try was due. A try ends within this, or a router has the job in its queue. */
const STALE_AFTER_MS = 60_000;
/** After a change: a person sees it move, and while thousands are turned away thousands of watchers look a few times a second. */
const TELL_AFTER_MS = 300;

export class Waits {
  readonly #options: WaitsOptions;
  /** By who told it and for whom. */
  readonly #waits = new Map<string, Wait>();
  readonly #listeners = new Set<() => void>();
  #cancelTell: (() => void) | undefined;

  constructor(options: WaitsOptions) {
    this.#options = options;
  }

  /** Undefined: it waits for its turn. Another object whenever it was told anew. */
  of(job: Passer): Wait | undefined {
    if (this.#waits.size === 0) return undefined;
    const nowMs = this.#options.wallNow();
    const waits = this.#own(job.key, [nameOf(job, 'job'), ...namesOf(job)]).map((name) => this.#waits.get(name));
    return waits.find((wait) => wait && !isStale(wait, nowMs));
  }

  /** It was turned away, and with it all whom the scope names. */
  turnedAway(job: Passer, scope: Scope, wait: Wait): void {
    for (const name of this.#own(job.key, [nameOf(job, scope)])) this.#waits.set(name, wait);
    this.#tellSoon();
  }

  /** A router has it in its queue: only whether its model has nodes is not found out yet. */
  queued(job: Passer): void {
    const ofModel = nameOf(job, 'model');
    this.#clear(
      job.key,
      [nameOf(job, 'job'), ...namesOf(job)].filter((name) => name !== ofModel),
    );
  }

  /** A node draws it. */
  begun(job: Passer): void {
    this.#clear(job.key, [nameOf(job, 'job'), ...namesOf(job)]);
  }

  /** It has changed or is gone: its own reason held for what it was. */
  changed(job: Passer): void {
    this.#clear(job.key, [nameOf(job, 'job')]);
  }

  stop(): void {
    this.#cancelTell?.();
    this.#cancelTell = undefined;
  }

  /** Told soon after something was told or is over. Returns what ends it. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** The names under which what holds for this job is kept. */
  #own(key: string, names: readonly string[]): string[] {
    const owner = this.#options.ownerOf(key);
    return names.map((name) => `${owner} ${name}`);
  }

  #clear(key: string, names: readonly string[]): void {
    if (this.#waits.size === 0) return;
    const cleared = this.#own(key, names).filter((name) => this.#waits.delete(name));
    if (cleared.length > 0) this.#tellSoon();
  }

  #tellSoon(): void {
    this.#cancelTell ??= this.#options.clock.schedule(TELL_AFTER_MS, () => {
      this.#cancelTell = undefined;
      const nowMs = this.#options.wallNow();
      for (const [name, wait] of this.#waits) if (isStale(wait, nowMs)) this.#waits.delete(name);
      for (const listener of this.#listeners) listener();
    });
  }
}

function isStale({ nextAttemptAtMs }: Wait, nowMs: number): boolean {
  return nowMs - nextAttemptAtMs > STALE_AFTER_MS;
}
