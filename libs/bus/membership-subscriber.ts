/**
 * Feeds a Membership from NATS: beats, leaves, the state of the link, and the roll call that lets a
 * router which starts late know the mesh within milliseconds instead of a beat's interval.
 */
import type { Emit } from '#core';
import type { Bus, BusMessage } from './bus.js';
import type { BusEvent } from './events.js';
import type { Membership } from './membership.js';
import { type Parsed, parseBeat, parseLeave } from './parse-beat.js';
import { ALL_BEATS, ALL_LEAVES, beatSubject, leaveSubject, ROLL_CALL } from './subjects.js';

export interface MembershipSubscriberOptions {
  readonly bus: Bus;
  readonly membership: Membership;
  readonly emit: Emit<BusEvent>;
}

export class MembershipSubscriber {
  readonly #options: MembershipSubscriberOptions;
  readonly #undo: (() => void)[] = [];

  constructor(options: MembershipSubscriberOptions) {
    this.#options = options;
  }

  /** Does not wait for NATS: the roll is called as soon as it is there. */
  start(): void {
    const { bus, membership } = this.#options;
    // Subscribed before the link is followed: setConnected calls the roll, and the answers must not be missed.
    this.#undo.push(
      bus.subscribe(ALL_BEATS, (message) => this.#take(message, parseBeat, beatSubject, (beat) => membership.accept(beat))),
      bus.subscribe(ALL_LEAVES, (message) => this.#take(message, parseLeave, leaveSubject, (leave) => membership.leave(leave))),
      bus.onLink((connected) => membership.setConnected(connected)),
    );
    membership.start();
  }

  stop(): void {
    for (const undo of this.#undo.splice(0)) undo();
    this.#options.membership.stop();
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
