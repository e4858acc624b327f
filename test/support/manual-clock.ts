/** A clock that stands still until a test moves it. Timers fire in order of their due time. */
import type { Clock } from '#core';

interface Timer {
  readonly dueAt: number;
  readonly fire: () => void;
}

export class ManualClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Set<Timer>();

  now(): number {
    return this.#nowMs;
  }

  schedule(ms: number, callback: () => void): () => void {
    const timer: Timer = { dueAt: this.#nowMs + Math.max(0, ms), fire: callback };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const onAbort = () => {
        cancel();
        reject(signal?.reason);
      };
      const cancel = this.schedule(ms, () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      });
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Timers nobody has cleared; zero after a clean stop. */
  get pendingCount(): number {
    return this.#timers.size;
  }

  /** Moves time forward, firing what falls due and letting promises settle between timers. */
  async advance(ms: number): Promise<void> {
    const endAt = this.#nowMs + ms;
    for (;;) {
      await settle();
      const next = [...this.#timers].sort((a, b) => a.dueAt - b.dueAt)[0];
      if (!next || next.dueAt > endAt) break;
      this.#timers.delete(next);
      this.#nowMs = next.dueAt;
      next.fire();
    }
    this.#nowMs = endAt;
    await settle();
  }
}

async function settle(): Promise<void> {
  for (let i = 0; i < 10; i++) await Promise.resolve();
}
