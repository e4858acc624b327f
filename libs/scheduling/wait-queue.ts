/**
 * Which request goes next? One ordered queue for the whole router; nothing ever waits in line behind
 * a single GPU, so what dies with a node is at most what that node was running.
 *
 * The order here is first come, first served: by arrival number. A request that comes back (busy
 * node, retry) keeps its number and so returns to its old place at the head.
 */

export interface Waiting {
  /** Rises by one with every request of this router; the order of the queue. */
  readonly arrival: number;
}

export class WaitQueue<Entry extends Waiting> {
  /** Sorted by arrival; new requests append, returning ones go to their old place. */
  readonly #entries: Entry[] = [];

  get size(): number {
    return this.#entries.length;
  }

  /** The request that should go next. */
  get head(): Entry | undefined {
    return this.#entries[0];
  }

  /** O(1) for a new request, O(log n) search plus a move for a returning one. */
  add(entry: Entry): void {
    const last = this.#entries.at(-1);
    if (!last || last.arrival < entry.arrival) this.#entries.push(entry);
    else this.#entries.splice(this.#indexAtOrAfter(entry.arrival), 0, entry);
  }

  /** False when it was not waiting. */
  remove(entry: Entry): boolean {
    const index = this.#indexAtOrAfter(entry.arrival);
    if (this.#entries[index] !== entry) return false;
    this.#entries.splice(index, 1);
    return true;
  }

  /** The best request that `fits`; it stays in the queue. */
  first(fits: (entry: Entry) => boolean): Entry | undefined {
    return this.#entries.find(fits);
  }

  /** 1 is next; 0 when it does not wait. */
  position(entry: Entry): number {
    const index = this.#indexAtOrAfter(entry.arrival);
    return this.#entries[index] === entry ? index + 1 : 0;
  }

  /** In the order of their turn. */
  [Symbol.iterator](): IterableIterator<Entry> {
    return this.#entries.values();
  }

  #indexAtOrAfter(arrival: number): number {
    let low = 0;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const entry = this.#entries[middle];
      if (entry && entry.arrival < arrival) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
