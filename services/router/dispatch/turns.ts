/** Lets so many go on in each turn of the event loop, the others in the turns that follow, first come first served. */
export class Turns {
  readonly #waiting: (() => void)[] = [];
  #scheduled = false;

  constructor(private readonly count: number) {}

  /** Resolves in a turn that has room, never in this one. */
  next(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#schedule();
    });
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      for (const goOn of this.#waiting.splice(0, this.count)) goOn();
      if (this.#waiting.length > 0) this.#schedule();
    });
  }
}
