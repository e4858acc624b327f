/** Wakes everybody who waits for the same thing to happen. */
export class Bell {
  readonly #waiting = new Set<() => void>();

  /** Resolves when it rings next, or when `signal` aborts or has aborted. */
  next(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.resolve();
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

  ring(): void {
    for (const wake of [...this.#waiting]) wake();
  }
}
