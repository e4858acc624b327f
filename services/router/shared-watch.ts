/**
 * One picture for all who watch: drawn once per interval, however many watch, and not at all while nobody
 * does. A watcher who reads slowly misses pictures in between, never the newest one.
 */
import type { Clock } from '#core';
import { Bell } from './bell.js';

export interface SharedWatchOptions {
  readonly clock: Clock;
  /** Changes are told at most this often. */
  readonly intervalMs: number;
  /** As it is now, serialised; it may take several turns of the event loop. One of the same bytes as before is no news to anybody. */
  readonly draw: () => Promise<Buffer>;
}

interface Latest {
  readonly bytes: Buffer;
  readonly drawnAt: number;
}

export class SharedWatch {
  readonly #options: SharedWatchOptions;
  readonly #news = new Bell();
  #latest: Latest | undefined;
  #drawing: Promise<Latest> | undefined;
  #watcherCount = 0;
  #cancelTimer = () => {};

  constructor(options: SharedWatchOptions) {
    this.#options = options;
  }

  /** Yields the picture as it is, then every newer one, until the signal aborts. */
  async *watch(signal: AbortSignal): AsyncGenerator<Buffer, void> {
    this.#join();
    try {
      let seen: Buffer | undefined;
      while (!signal.aborted) {
        const { bytes } = await this.#current();
        if (signal.aborted) return;
        if (bytes !== seen) {
          seen = bytes;
          yield bytes;
        } else if (this.#latest?.bytes === seen) await this.#news.next(signal); // else it changed meanwhile
      }
    } finally {
      this.#leave();
    }
  }

  /** The newest picture; drawn anew when the timer has not kept it fresh. */
  async #current(): Promise<Latest> {
    const { clock, intervalMs } = this.#options;
    const latest = this.#latest;
    return latest && clock.now() - latest.drawnAt < intervalMs ? latest : this.#draw();
  }

  /** At most one at a time. */
  #draw(): Promise<Latest> {
    this.#drawing ??= this.#drawNow().finally(() => {
      this.#drawing = undefined;
    });
    return this.#drawing;
  }

  async #drawNow(): Promise<Latest> {
    const { clock, draw } = this.#options;
    const drawn = await draw();
    const known = this.#latest?.bytes.equals(drawn) ? this.#latest.bytes : undefined;
    this.#latest = { bytes: known ?? drawn, drawnAt: clock.now() };
    if (!known) this.#news.ring();
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
      this.#tick();
      this.#draw().catch(() => this.#news.ring()); // those who watch draw it themselves, and are told
    });
  }
}
