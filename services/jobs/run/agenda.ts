/**
 * When is something due, and what? One timer for any number of jobs: each has one due time on a heap, and whoever
 * asked looks again then. What is due is not kept here; it follows from the job as it is at that time.
 *
 * Times are of the wall clock, as in the records. It may be set: the timer therefore looks again once a minute.
 */
import type { Clock } from '#core';
import { Heap } from '#scheduling';

export interface AgendaOptions {
  readonly clock: Clock;
  readonly wallNow: () => number;
  /** It is due; it stands on the agenda no more. */
  readonly onDue: (key: string) => void;
}

interface Item {
  readonly key: string;
  dueAtMs: number;
}

const LOOK_AGAIN_MS = 60_000;
/** Of many that are due at once, so many between two looks at the world outside. */
const AT_ONCE_COUNT = 256;

export class Agenda {
  readonly #options: AgendaOptions;
  readonly #items = new Map<string, Item>();
  readonly #heap = new Heap<Item>((a, b) => a.dueAtMs < b.dueAtMs);
  /** When the timer fires, wall clock. */
  #timerAtMs = Number.POSITIVE_INFINITY;
  #cancelTimer = () => {};

  constructor(options: AgendaOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#items.size;
  }

  /** In place of what was set before; undefined: nothing is due. */
  set(key: string, dueAtMs: number | undefined): void {
    const item = this.#items.get(key);
    if (dueAtMs === undefined) {
      if (item) this.#drop(item);
      return;
    }
    if (!item) {
      const added = { key, dueAtMs };
      this.#items.set(key, added);
      this.#heap.add(added);
    } else if (item.dueAtMs !== dueAtMs) {
      item.dueAtMs = dueAtMs;
      this.#heap.moved(item);
    }
    this.#arm();
  }

  close(): void {
    this.#cancelTimer();
    this.#timerAtMs = Number.NEGATIVE_INFINITY; // nothing arms it again
  }

  #drop(item: Item): void {
    this.#items.delete(item.key);
    this.#heap.remove(item);
  }

  #arm(): void {
    const head = this.#heap.head;
    if (!head || head.dueAtMs >= this.#timerAtMs) return;
    const { clock, wallNow } = this.#options;
    this.#cancelTimer();
    const delayMs = Math.min(LOOK_AGAIN_MS, Math.max(0, head.dueAtMs - wallNow()));
    this.#timerAtMs = wallNow() + delayMs;
    this.#cancelTimer = clock.schedule(delayMs, () => this.#fire());
  }

  #fire(): void {
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    const nowMs = this.#options.wallNow();
    for (let count = 0; count < AT_ONCE_COUNT; count++) {
      const head = this.#heap.head;
      if (!head || head.dueAtMs > nowMs) break;
      this.#drop(head);
      this.#options.onDue(head.key);
    }
    this.#arm();
  }
}
