/**
 * Tells the mesh that this node lives and what it can do: every second, at once when something
 * changes, when a router calls the roll, and when NATS is back. Says so when it leaves. A beat that
 * cannot be sent now is not sent later: a burst of old news says nothing about who is alive.
 */
import type { Clock, Random } from '#core';
import type { Beat, Leave } from './beat.js';
import type { Bus } from './bus.js';
import { beatSubject, leaveSubject, ROLL_CALL } from './subjects.js';

/** Nodes that started together must not beat together for ever. */
const JITTER_RATIO = 0.1;
/** Changes that belong together (a slot freed, a counter raised) become one beat. */
const COALESCE_MS = 3;

export interface BeatPublisherOptions {
  readonly bus: Bus;
  readonly clock: Clock;
  readonly random: Random;
  /** Default 1000; the same for the whole mesh, since observers count missed beats. */
  readonly intervalMs?: number;
  /** The node's state now; nodeId and incarnation never change. Asked at each beat. */
  readonly read: () => Omit<Beat, 'seq'>;
}

export class BeatPublisher {
  readonly #options: BeatPublisherOptions;
  readonly #undo: (() => void)[] = [];
  #phase: 'new' | 'running' | 'stopped' = 'new';
  #seq = 0;
  #cancelNext = () => {};
  #soon = false;

  constructor(options: BeatPublisherOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#phase !== 'new') return;
    this.#phase = 'running';
    const { bus } = this.#options;
    this.#later();
    this.#undo.push(bus.subscribe(ROLL_CALL, () => this.changed()));
    this.#undo.push(bus.onLink((connected) => connected && this.changed()));
  }

  /** Something a router should know has changed: beats within a few milliseconds. Cheap to call often. */
  changed(): void {
    if (this.#phase !== 'running' || this.#soon) return;
    this.#soon = true;
    this.#beatIn(COALESCE_MS);
  }

  /** Says goodbye, so that routers need not wait for silence. Resolves when NATS has it or is away. Safe to repeat. */
  async stop(): Promise<void> {
    if (this.#phase === 'stopped') return;
    const wasRunning = this.#phase === 'running';
    this.#phase = 'stopped';
    this.#cancelNext();
    for (const undo of this.#undo.splice(0)) undo();
    if (!wasRunning) return;
    const { nodeId, incarnation } = this.#options.read();
    const leave: Leave = { nodeId, incarnation };
    this.#options.bus.publish(leaveSubject(nodeId), JSON.stringify(leave));
    await this.#options.bus.flush();
  }

  #beat(): void {
    this.#soon = false;
    const { bus, read } = this.#options;
    this.#later();
    if (!bus.connected) return;
    this.#seq += 1;
    const beat: Beat = { ...read(), seq: this.#seq };
    bus.publish(beatSubject(beat.nodeId), JSON.stringify(beat));
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
