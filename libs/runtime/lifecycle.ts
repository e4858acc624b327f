/**
 * starting → ready → draining → stopped, one way. Parts start in order and leave in reverse. A
 * failed start closes what had started. `stop()` is one promise shared by all callers; what has not
 * drained when the grace is over is cut. (Node 20 has no AsyncDisposableStack.)
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

export class Lifecycle {
  #phase: Phase = 'starting';
  #stopped: Promise<void> | undefined;

  constructor(
    private readonly parts: readonly Part[],
    private readonly options: { clock: Clock; graceMs: number },
  ) {}

  get phase(): Phase {
    return this.#phase;
  }

  /** Starts every part in order; on a failure closes those already started and rethrows. */
  async start(): Promise<void> {
    const started: Part[] = [];
    try {
      for (const item of this.parts) {
        started.push(item);
        await item.start();
      }
    } catch (reason) {
      for (const item of started.reverse()) await item.close().catch(() => {}); // the first failure is the one to report
      this.#phase = 'stopped';
      throw reason;
    }
    this.#phase = 'ready';
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#phase = 'draining'; // readiness turns false here, first
    const errors: unknown[] = [];
    const note = (error: unknown) => void errors.push(error);
    const leaving = [...this.parts].reverse();
    const drained = (async () => {
      for (const item of leaving) await item.drain().catch(note);
    })();
    const grace = new AbortController();
    const cut = this.options.clock.sleep(this.options.graceMs, grace.signal).catch(() => {});
    await Promise.race([drained, cut]);
    grace.abort();
    for (const item of leaving) await item.close().catch(note);
    this.#phase = 'stopped';
    if (errors.length > 0) throw new AggregateError(errors, 'stopped with errors');
  }
}
