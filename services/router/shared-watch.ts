/**
 * One picture for all who watch: drawn and serialised once per interval, however many watch, and not at
 * all while nobody does. A watcher who reads slowly misses pictures in between, never the newest one.
 */
import type { Clock } from '#core';

export interface SharedWatchOptions<Picture> {
  readonly clock: Clock;
  /** Changes are told at most this often. */
  readonly intervalMs: number;
  readonly draw: () => Picture;
  /** Pictures of the same bytes are no news to anybody. */
  readonly serialise: (picture: Picture) => Buffer;
}

interface Latest {
  readonly bytes: Buffer;
  readonly drawnAt: number;
}

export class SharedWatch<Picture> {
  readonly #options: SharedWatchOptions<Picture>;
  readonly #waiting = new Set<() => void>();
  #latest: Latest | undefined;
  #watcherCount = 0;
  #cancelTimer = () => {};

  constructor(options: SharedWatchOptions<Picture>) {
    this.#options = options;
  }

  /** Yields the picture as it is, then every newer one, until the signal aborts. */
  async *watch(signal: AbortSignal): AsyncGenerator<Buffer, void> {
    this.#join();
    try {
      let seen: Buffer | undefined;
      while (!signal.aborted) {
        const { bytes } = this.#current();
        if (bytes !== seen) {
          seen = bytes;
          yield bytes;
        } else await this.#change(signal);
      }
    } finally {
      this.#leave();
    }
  }

  /** The newest picture; drawn anew when the timer has not kept it fresh. */
  #current(): Latest {
    const { clock, intervalMs } = this.#options;
    const latest = this.#latest;
    return latest && clock.now() - latest.drawnAt < intervalMs ? latest : this.#draw();
  }

  #draw(): Latest {
    const { clock, draw, serialise } = this.#options;
    const drawn = serialise(draw());
    const known = this.#latest?.bytes.equals(drawn) ? this.#latest.bytes : undefined;
    this.#latest = { bytes: known ?? drawn, drawnAt: clock.now() };
    if (!known) for (const wake of [...this.#waiting]) wake();
    return this.#latest;
  }

  #join(): void {
    this.#watcherCount++;
    if (this.#watcherCount === 1) this.#tick();
  }

  #leave(): void {
    this.#watcherCount--;
    if (this.#watcherCount === 0) this.#cancelTimer();
  }

  #tick(): void {
    const { clock, intervalMs } = this.#options;
    this.#cancelTimer = clock.schedule(intervalMs, () => {
      this.#draw();
      this.#tick();
    });
  }

  #change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#waiting.delete(wake);
        signal.removeEventListener('abort', wake);
        resolve();
      };
      this.#waiting.add(wake);
      signal.addEventListener('abort', wake, { once: true });
    });
  }
}
