/** Whether new work is let in, and when all that was let in has left: drain, resume, reload. */
import type { Emit } from '#core';
import type { Slot } from './domain/slot.js';
import type { Executor } from './engine/executor.js';
import type { Supervisor } from './engine/supervisor.js';
import type { NodeEvent } from './events.js';

export interface IntakeOptions {
  readonly slot: Slot;
  readonly supervisor: Supervisor;
  readonly executor: Executor;
  readonly emit: Emit<NodeEvent>;
}

export class Intake {
  readonly #options: IntakeOptions;
  readonly #waiting = new Set<() => void>();
  #callCount = 0;
  #draining = false;
  #reloadWanted = false;

  constructor(options: IntakeOptions) {
    this.#options = options;
  }

  get draining(): boolean {
    return this.#draining;
  }

  /** Calls in progress, from validation to the last byte. */
  get callCount(): number {
    return this.#callCount;
  }

  /** The same handler; a drain waits for it. */
  counted<Args extends unknown[], Result>(handler: (...args: Args) => Promise<Result>): (...args: Args) => Promise<Result> {
    return async (...args) => {
      this.#callCount++;
      try {
        return await handler(...args);
      } finally {
        this.#callCount--;
        this.settle();
      }
    };
  }

  /** Refuses new work; resolves when none is left. */
  async drain(by: string): Promise<void> {
    this.#setDraining(true, by);
    if (this.#idle) return;
    await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }

  resume(by: string): void {
    this.#setDraining(false, by);
  }

  /** A fresh engine as soon as what runs or was granted has left; nothing new is let in until then, or a busy node would never get to it. */
  reload(): void {
    this.#reloadWanted = true;
    this.#options.slot.setDraining(true);
    this.settle();
  }

  /** Called at every change of the slot: what waited for idleness may go on. */
  settle(): void {
    if (this.#idle) for (const resolve of this.#waiting) resolve();
    if (this.#idle) this.#waiting.clear();
    if (!this.#reloadWanted || this.#options.slot.snapshot.busyCount > 0) return;
    this.#reloadWanted = false;
    this.#options.supervisor.reload();
    this.#options.slot.setDraining(this.#draining);
  }

  /** A cancelled request may hold the engine after its call is over. */
  get #idle(): boolean {
    return this.#callCount === 0 && this.#options.slot.snapshot.busyCount === 0;
  }

  #setDraining(draining: boolean, by: string): void {
    if (draining !== this.#draining) this.#options.emit({ type: 'drainChanged', draining, by });
    this.#draining = draining;
    this.#options.slot.setDraining(draining || this.#reloadWanted);
  }
}
