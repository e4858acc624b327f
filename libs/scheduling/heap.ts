/**
 * A binary min-heap whose items can leave from anywhere: requests are cancelled while they wait, and
 * tenants change their turn. Every change costs O(log n).
 */
export class Heap<Item> {
  readonly #items: Item[] = [];
  readonly #indexOf = new Map<Item, number>();

  /** `before`: a strict order; equal items leave in no particular order. */
  constructor(private readonly before: (a: Item, b: Item) => boolean) {}

  get size(): number {
    return this.#items.length;
  }

  /** The least item. */
  get head(): Item | undefined {
    return this.#items[0];
  }

  has(item: Item): boolean {
    return this.#indexOf.has(item);
  }

  add(item: Item): void {
    this.#items.push(item);
    this.#rise(item, this.#items.length - 1);
  }

  /** False when it was not there. */
  remove(item: Item): boolean {
    const index = this.#indexOf.get(item);
    if (index === undefined) return false;
    this.#indexOf.delete(item);
    const last = this.#items.pop() as Item;
    if (last !== item) this.#place(last, index);
    return true;
  }

  /** Call after the item's order has changed. */
  moved(item: Item): void {
    const index = this.#indexOf.get(item);
    if (index !== undefined) this.#place(item, index);
  }

  /** From the least on; k items cost O(k log k). The heap must not change meanwhile. */
  *inOrder(): Generator<Item, void> {
    const frontier = new Heap<number>((a, b) => this.before(this.#items[a] as Item, this.#items[b] as Item));
    if (this.#items.length > 0) frontier.add(0);
    for (let index = frontier.head; index !== undefined; index = frontier.head) {
      yield this.#items[index] as Item;
      frontier.remove(index);
      for (const child of [2 * index + 1, 2 * index + 2]) if (child < this.#items.length) frontier.add(child);
    }
  }

  /** In no particular order. */
  [Symbol.iterator](): IterableIterator<Item> {
    return this.#items.values();
  }

  #place(item: Item, index: number): void {
    const parent = this.#items[(index - 1) >> 1];
    if (index > 0 && this.before(item, parent as Item)) this.#rise(item, index);
    else this.#sink(item, index);
  }

  #rise(item: Item, from: number): void {
    let index = from;
    while (index > 0) {
      const parentIndex = (index - 1) >> 1;
      const parent = this.#items[parentIndex] as Item;
      if (!this.before(item, parent)) break;
      this.#put(parent, index);
      index = parentIndex;
    }
    this.#put(item, index);
  }

  #sink(item: Item, from: number): void {
    let index = from;
    for (;;) {
      const left = 2 * index + 1;
      if (left >= this.#items.length) break;
      const right = left + 1;
      const rightIsLess = right < this.#items.length && this.before(this.#items[right] as Item, this.#items[left] as Item);
      const childIndex = rightIsLess ? right : left;
      const child = this.#items[childIndex] as Item;
      if (!this.before(child, item)) break;
      this.#put(child, index);
      index = childIndex;
    }
    this.#put(item, index);
  }

  #put(item: Item, index: number): void {
    this.#items[index] = item;
    this.#indexOf.set(item, index);
  }
}
