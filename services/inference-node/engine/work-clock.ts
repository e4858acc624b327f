/**
 * How long has this request really been worked on? A clock that stands still while its request is paused,
 * its timers with it: what is measured or limited by it counts no pause.
 */
import type { Clock } from '#core';

interface Timer {
  /** In this clock's time. */
  readonly dueAt: number;
  readonly fire: () => void;
  cancel: () => void;
}

export class WorkClock implements Pick<Clock, 'now' | 'schedule'> {
  readonly #clock: Clock;
  readonly #timers = new Set<Timer>();
  #behindMs = 0;
  /** In real time; undefined while it goes. */
  #stoppedAt: number | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get stopped(): boolean {
    return this.#stoppedAt !== undefined;
  }

  now(): number {
    return (this.#stoppedAt ?? this.#clock.now()) - this.#behindMs;
  }

  schedule(ms: number, callback: () => void): () => void {
    const timer: Timer = { dueAt: this.now() + ms, fire: callback, cancel: () => {} };
    this.#timers.add(timer);
    if (!this.stopped) this.#start(timer);
    return () => {
      timer.cancel();
      this.#timers.delete(timer);
    };
  }

  stop(): void {
    this.#stoppedAt ??= this.#clock.now();
    for (const timer of this.#timers) timer.cancel();
  }

  /** Says how long it stood still, milliseconds. */
  go(): number {
    if (this.#stoppedAt === undefined) return 0;
    const stoppedMs = this.#clock.now() - this.#stoppedAt;
    this.#behindMs += stoppedMs;
    this.#stoppedAt = undefined;
    for (const timer of this.#timers) this.#start(timer);
    return stoppedMs;
  }

  #start(timer: Timer): void {
    timer.cancel = this.#clock.schedule(timer.dueAt - this.now(), () => {
      this.#timers.delete(timer);
      timer.fire();
    });
  }
}
