/** Has nothing moved for too long? */
import type { Clock } from '#core';

/** Calls back when it has not been fed for a while. */
export class Watchdog {
  #cancel: () => void;

  constructor(
    private readonly clock: Pick<Clock, 'schedule'>,
    private readonly patienceMs: number,
    private readonly onStarved: () => void,
  ) {
    this.#cancel = clock.schedule(patienceMs, onStarved);
  }

  feed(): void {
    this.#cancel();
    this.#cancel = this.clock.schedule(this.patienceMs, this.onStarved);
  }

  stop(): void {
    this.#cancel();
  }
}
