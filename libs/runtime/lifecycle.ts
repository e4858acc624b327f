/**
 * starting → ready → draining → stopped, one way. Parts start in order and leave in reverse. A
 * failed start closes what had started. `stop()` is one promise shared by all callers; what has not
 * drained when the grace is over is cut. It may come while starting: then nothing more starts, and a
 * part that hangs in its start is not waited for. (Node 20 has no AsyncDisposableStack.)
 */
import type { Clock } from '#core';

/** `drain` refuses new work and resolves when none is left. `close` ends at once whatever is left. */
export interface Part {
  readonly name: string;
  start(): Promise<void>;
  drain(): Promise<void>;
  close(): Promise<void>;
}

export type Phase = 'starting' | 'ready' | 'draining' | 'stopped';

/** A Part from the pieces that matter; what is missing does nothing. */
export function part(name: string, pieces: Partial<Omit<Part, 'name'>>): Part {
  const nothing = async () => {};
  return { name, start: pieces.start ?? nothing, drain: pieces.drain ?? nothing, close: pieces.close ?? nothing };
}

/** For a start that is under way when a stop is asked for; most take less, and one that hangs has nothing to lose. */
const START_PATIENCE_MS = 1000;

export class Lifecycle {
  #phase: Phase = 'starting';
  #stopped: Promise<void> | undefined;
  readonly #started: Part[] = [];
  /** The part whose start is under way. */
  #entering: Part | undefined;
  #startSettled: Promise<unknown> = Promise.resolve();
  #closing = false;

  constructor(
    private readonly parts: readonly Part[],
    private readonly options: { clock: Clock; graceMs: number },
  ) {}

  get phase(): Phase {
    return this.#phase;
  }

  /** Starts every part in order; on a failure closes those already started and rethrows. Stopped meanwhile, it starts no more. */
  start(): Promise<void> {
    const starting = this.#start();
    this.#startSettled = starting.catch(() => {});
    return starting;
  }

  async #start(): Promise<void> {
    try {
      for (const item of this.parts) {
        if (this.#stopped) throw new Error('stopped while starting');
        this.#entering = item;
        await item.start();
        this.#entering = undefined;
        this.#started.push(item);
        if (this.#closing) await item.close(); // it came too late to leave with the others
      }
    } catch (reason) {
      if (this.#stopped) throw reason; // which closes everything
      for (const item of this.#begun()) await item.close().catch(() => {}); // the first failure is the one to report
      this.#phase = 'stopped';
      throw reason;
    }
    if (!this.#stopped) this.#phase = 'ready';
  }

  /** `maxGraceMs`: where there is no point in waiting as long as usual. */
  stop({ maxGraceMs = Number.POSITIVE_INFINITY }: { maxGraceMs?: number } = {}): Promise<void> {
    this.#stopped ??= this.#stop(Math.min(this.options.graceMs, maxGraceMs));
    return this.#stopped;
  }

  async #stop(graceMs: number): Promise<void> {
    const { clock } = this.options;
    this.#phase = 'draining'; // readiness turns false here, first
    const graceEndsAt = clock.now() + graceMs;
    const errors: unknown[] = [];
    const note = (error: unknown) => void errors.push(error);
    await this.#within(Math.min(graceMs, START_PATIENCE_MS), this.#startSettled);
    const drainAll = async () => {
      for (const item of [...this.#started].reverse()) await item.drain().catch(note);
    };
    await this.#within(graceEndsAt - clock.now(), drainAll());
    this.#closing = true;
    for (const item of this.#begun()) await item.close().catch(note);
    this.#phase = 'stopped';
    if (errors.length > 0) throw new AggregateError(errors, 'stopped with errors');
  }

  /** Last first. A part still in its start, or that failed in it, may hold something already. */
  #begun(): Part[] {
    return [...this.#started, ...(this.#entering ? [this.#entering] : [])].reverse();
  }

  async #within(ms: number, work: Promise<unknown>): Promise<void> {
    const over = new AbortController();
    await Promise.race([work, this.options.clock.sleep(ms, over.signal).catch(() => {})]);
    over.abort();
  }
}
