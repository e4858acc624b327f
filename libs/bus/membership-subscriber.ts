/**
 * Feeds a Membership from NATS: beats, leaves, the state of the link, and the roll call that lets a
 * router which starts late know the mesh within milliseconds instead of a beat's interval. A thousand
 * nodes answer that at once: what has come is taken in order, a few milliseconds in each turn of the event loop.
 */
import type { Clock, Emit } from '#core';
import { type Bus, type BusMessage, guard } from './bus.js';
import type { BusEvent } from './events.js';
import type { Membership } from './membership.js';
import { type Parsed, parseBeat, parseLeave } from './parse-beat.js';
import { ALL_BEATS, ALL_LEAVES, beatSubject, leaveSubject, ROLL_CALL } from './subjects.js';

export interface MembershipSubscriberOptions {
  readonly clock: Clock;
  readonly bus: Bus;
  readonly membership: Membership;
  readonly emit: Emit<BusEvent>;
}

interface Heard {
  readonly subject: string;
  readonly take: () => void;
}

/** Of one turn: whoever waits for the event loop waits little longer for beats, of which a turn takes many (dmesh_event_loop_lag_seconds tells). */
const TURN_MS = 4;

export class MembershipSubscriber {
  readonly #options: MembershipSubscriberOptions;
  readonly #undo: (() => void)[] = [];
  /** What has come and was not taken yet, oldest first. */
  #heard: Heard[] = [];

  constructor(options: MembershipSubscriberOptions) {
    this.#options = options;
  }

  /** Does not wait for NATS: the roll is called as soon as it is there. */
  start(): void {
    const { bus, membership } = this.#options;
    // Subscribed before the link is followed: setConnected calls the roll, and the answers must not be missed.
    this.#undo.push(
      bus.subscribe(ALL_BEATS, (message) =>
        this.#hear(message, () => this.#take(message, parseBeat, beatSubject, (beat) => membership.accept(beat))),
      ),
      bus.subscribe(ALL_LEAVES, (message) =>
        this.#hear(message, () => this.#take(message, parseLeave, leaveSubject, (leave) => membership.leave(leave))),
      ),
      bus.onLink((connected) => membership.setConnected(connected)),
    );
    membership.start();
  }

  stop(): void {
    for (const undo of this.#undo.splice(0)) undo();
    this.#heard = [];
    this.#options.membership.stop();
  }

  #hear({ subject }: BusMessage, take: () => void): void {
    this.#heard.push({ subject, take });
    if (this.#heard.length === 1) setImmediate(() => this.#takeHeard());
  }

  #takeHeard(): void {
    const { clock, emit } = this.#options;
    const endsAt = clock.now() + TURN_MS;
    let count = 0;
    for (const { subject, take } of this.#heard) {
      if (count > 0 && clock.now() >= endsAt) break;
      count++;
      guard(emit, subject, take);
    }
    this.#heard = this.#heard.slice(count);
    if (this.#heard.length > 0) setImmediate(() => this.#takeHeard());
  }

  #take<T extends { readonly nodeId: string }>(
    message: BusMessage,
    parse: (bytes: Uint8Array) => Parsed<T>,
    subjectOf: (nodeId: string) => string,
    accept: (value: T) => void,
  ): void {
    const parsed = parse(message.data);
    // NATS permissions bind a node to its own subject; a beat in somebody else's name is a lie.
    if (parsed.kind === 'ok' && message.subject === subjectOf(parsed.value.nodeId)) {
      accept(parsed.value);
    } else {
      const fault = parsed.kind === 'ok' ? `nodeId is ${parsed.value.nodeId}` : parsed.fault;
      this.#options.emit({ type: 'beatRejected', subject: message.subject, fault });
    }
  }
}

/** Asks every node to beat now. */
export function callRoll(bus: Bus): void {
  bus.publish(ROLL_CALL, '');
}
