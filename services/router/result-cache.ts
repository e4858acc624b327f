/** Recent answers by content, within a bound of bytes; the longest unused go first. Off when the bound is 0. */
import type { Emit } from '#core';
import type { Pieces } from '#grpc';
import type { RouterEvent } from './events.js';

export class ResultCache {
  readonly #answers = new Map<string, Pieces>();
  #heldBytes = 0;

  constructor(
    private readonly maxBytes: number,
    private readonly emit: Emit<RouterEvent>,
  ) {}

  get enabled(): boolean {
    return this.maxBytes > 0;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  get(key: string): Pieces | undefined {
    const found = this.#answers.get(key);
    this.emit({ type: 'cacheAsked', hit: found !== undefined });
    if (!found) return undefined;
    this.#answers.delete(key);
    this.#answers.set(key, found);
    return found;
  }

  put(key: string, answer: Pieces): void {
    this.#drop(key);
    if (answer.byteLength > this.maxBytes) return;
    this.#answers.set(key, answer);
    this.#heldBytes += answer.byteLength;
    for (const oldest of this.#answers.keys()) {
      if (this.#heldBytes <= this.maxBytes) return;
      this.#drop(oldest);
    }
  }

  #drop(key: string): void {
    this.#heldBytes -= this.#answers.get(key)?.byteLength ?? 0;
    this.#answers.delete(key);
  }
}
