/**
 * When does a process speak up? Every second, at once when something changes, when somebody calls the
 * roll, and when NATS is back. Says so when it leaves. A beat that cannot be sent now is not sent
 * later: a burst of old news says nothing about who is alive.
 */
import type { Clock, Random } from '#core';
import type { Bus } from './bus.js';

/** Processes that started together must not beat together for ever. */
const JITTER_RATIO = 0.1;
/** Changes that belong together (a slot freed, a counter raised) become one beat. */
const COALESCE_MS = 3;

export interface Message {
  readonly subject: string;
  readonly payload: string;
}

export interface HeartbeatOptions {
  readonly bus: Bus;
  readonly clock: Clock;
  readonly random: Random;
  /** Default 1000; the same for the whole mesh, since observers count missed beats. */
  readonly intervalMs?: number;
  /** The subject on which everybody is asked to beat now. */
  readonly rollCall: string;
  /** What to say; asked at each beat. */
  readonly beat: () => Message;
  /** The last word. */
  readonly leave: () => Message;
}

export class Heartbeat {
  readonly #options: HeartbeatOptions;
  readonly #undo: (() => void)[] = [];
  #phase: 'new' | 'running' | 'stopped' = 'new';
  #cancelNext = () => {};
  #soon = false;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#phase !== 'new') return;
    this.#phase = 'running';
    const { bus, rollCall } = this.#options;
    this.#later();
    this.#undo.push(bus.subscribe(rollCall, () => this.changed()));
    this.#undo.push(bus.onLink((connected) => connected && this.changed()));
  }

  /** Something an observer should know has changed: beats within a few milliseconds. Cheap to call often. */
  changed(): void {
    if (this.#phase !== 'running' || this.#soon) return;
    this.#soon = true;
    this.#beatIn(COALESCE_MS);
  }

  /** Says goodbye, so that nobody need wait for silence. Resolves when NATS has it or is away. Safe to repeat. */
  async stop(): Promise<void> {
    if (this.#phase === 'stopped') return;
    const wasRunning = this.#phase === 'running';
    this.#phase = 'stopped';
    this.#cancelNext();
    for (const undo of this.#undo.splice(0)) undo();
    if (!wasRunning) return;
    const { bus, leave } = this.#options;
    const { subject, payload } = leave();
    bus.publish(subject, payload);
    await bus.flush();
  }

  #beat(): void {
    this.#soon = false;
    const { bus, beat } = this.#options;
    this.#later();
    if (!bus.connected) return;
    const { subject, payload } = beat();
    bus.publish(subject, payload);
  }

  #later(): void {
    const { random, intervalMs = 1000 } = this.#options;
    this.#beatIn(intervalMs * (1 - JITTER_RATIO + 2 * JITTER_RATIO * random()));
  }

  /** One timer at a time: a change brings the next beat forward, and the second counts from there. */
  #beatIn(ms: number): void {
    this.#cancelNext();
    this.#cancelNext = this.#options.clock.schedule(ms, () => this.#beat());
  }
}
