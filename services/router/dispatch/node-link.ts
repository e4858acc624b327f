/**
 * One router's line to one node: the channel its calls go over and the Attach stream on which the
 * node says what its slots do and hands out grants. The stream is also the proof of life: its
 * keepalive finds a frozen or unreachable node in about two seconds, while beats on NATS only hint.
 *
 * disconnected → connected (first slot state) → disconnected, for ever, until closed.
 */
import { node as nodeContract, PRIORITY_MESSAGES, priorityName } from '#contracts';
import type { Clock } from '#core';
import { Channel, type Duplex, statusFromGrpc } from '#grpc';
import type { Bid, Preemption, Service } from '#scheduling';
import type { ClientTls } from '#tls';

type ToNode = nodeContract.AttachRequest;
type FromNode = nodeContract.AttachResponse;

export interface NodeLinkOptions {
  readonly routerId: string;
  readonly address: string;
  readonly clock: Clock;
  readonly connectTimeoutMs: number;
  /** Pings this often; lost after as long again. */
  readonly keepaliveMs: number;
  /** Absent: plain. */
  readonly tls?: ClientTls | undefined;
  /** Awaited before each attempt to connect. */
  readonly turn: () => Promise<void>;
  /** Slots or connection changed. */
  readonly onChange: () => void;
  /** Called with the connection's end and its reason. */
  readonly onLost: (reason: string) => void;
  /** Called when no connection comes about, once for each reason. */
  readonly onUnreached: (reason: string) => void;
  readonly onGrant: (leaseId: bigint, preemption: Preemption | undefined) => void;
  /** GPU time of this node went to another router's request. */
  readonly onServed: (served: Served) => void;
}

/** GPU time that a node gave. */
export interface Served extends Service {
  /** Somebody asked in the tenant's name: no request of its own. */
  readonly actedFor: boolean;
}

/** First pause before the stream is opened again; doubles to the maximum. */
const RECONNECT_MS = { first: 50, max: 1000 };

/**
 * How long a refusal is believed when no word follows it. The word that the node takes work again may have crossed with
 * the refusal, on another connection, and an idle node says nothing more. Short beside a picture; and a node that is
 * really away is not asked in circles.
 */
const REFUSAL_MS = 1000;

/** What a node says is kept within these: one that talks nonsense harms nobody but itself. */
const MAX_SLOT_COUNT = 64;
const MAX_FREE_IN_MS = 24 * 3600 * 1000;
const MAX_SERVED_MS = 3600 * 1000;

export class NodeLink {
  readonly channel: Channel;
  readonly #options: NodeLinkOptions;
  readonly #closing = new AbortController();
  #stream: Duplex<ToNode, FromNode> | undefined;
  #connected = false;
  #accepting = false;
  #refusedUntil = 0;
  #slotCount = 0;
  #freeCount = 0;
  #nextFreeAt = 0;
  #maxPauseMs = 0;
  #standingBid: Bid | undefined;
  #complaint = '';

  constructor(options: NodeLinkOptions) {
    this.#options = options;
    const { address, clock, connectTimeoutMs, keepaliveMs, tls } = options;
    this.channel = new Channel(address, { clock, connectTimeoutMs, keepaliveMs, tls });
    void this.#attachForEver();
  }

  get connected(): boolean {
    return this.#connected;
  }

  /** The node takes work: connected, engine ready, not draining. */
  get accepting(): boolean {
    return this.#connected && this.#accepting && this.#options.clock.now() >= this.#refusedUntil;
  }

  get slotCount(): number {
    return this.#slotCount;
  }

  /**
   * Slots that may be called without a grant: what the node said was idle, less what we have sent since.
   * None while a bid of ours stands: the node answers that with a grant, and a call would cross with it.
   */
  get freeCount(): number {
    return this.accepting && !this.bidding ? this.#freeCount : 0;
  }

  /** Slots that run something or are promised, also of a node that takes nothing new. */
  get busyCount(): number {
    return this.#slotCount - this.#freeCount;
  }

  /** Predicted time until a slot is free, 0 when one is. */
  get freeInMs(): number {
    return this.freeCount > 0 ? 0 : Math.max(1, this.#nextFreeAt - this.#options.clock.now());
  }

  /** A request may be paused there for so long in all, milliseconds. */
  get maxPauseMs(): number {
    return this.#maxPauseMs;
  }

  /** A bid of ours stands at the node. */
  get bidding(): boolean {
    return this.#standingBid !== undefined;
  }

  /** What the node was told last. */
  get standingBid(): Bid | undefined {
    return this.#standingBid;
  }

  /** "I hold work for you." Replaced by the next bid, used up by a grant. */
  bid(backlogCount: number, bid: Bid): void {
    this.#standingBid = bid;
    const { rank, leadMs, dueAt, priority, costMs } = bid;
    const slackMs = dueAt - this.#options.clock.now();
    const value = { backlogCount, rank, leadMs, slackMs, priority: PRIORITY_MESSAGES[priority], costMs };
    this.#stream?.send({ message: { $case: 'bid', value } });
    this.channel.prepareRaw(); // in a large mesh most calls are the first to their node: the grant must not wait for a connection
  }

  withdraw(): void {
    this.#standingBid = undefined;
    this.#stream?.send({ message: { $case: 'bid', value: nodeContract.Bid.fromPartial({}) } });
  }

  decline(leaseId: bigint): void {
    this.#stream?.send({ message: { $case: 'decline', value: { leaseId } } });
  }

  /** A request was sent to an idle slot; until the node says otherwise that slot is taken. */
  takeFree(): void {
    this.#freeCount = Math.max(0, this.#freeCount - 1);
  }

  /** The node was busy after all; only its next word or a grant makes it free again. */
  noteBusy(): void {
    this.#freeCount = 0;
  }

  /** The node refused because it drains or its engine is away; believed until its next word, or for REFUSAL_MS. */
  noteNotAccepting(): void {
    const { clock, onChange } = this.#options;
    this.#refusedUntil = clock.now() + REFUSAL_MS;
    clock.schedule(REFUSAL_MS, onChange);
  }

  close(): void {
    this.#closing.abort();
    this.channel.close();
  }

  async #attachForEver(): Promise<void> {
    const { signal } = this.#closing;
    let pauseMs = RECONNECT_MS.first;
    for (;;) {
      await this.#options.turn();
      if (signal.aborted) return;
      let reason = 'stream ended';
      try {
        this.#stream = this.channel.duplex(nodeContract.InferenceNodeServiceService.attach, { signal });
        this.#stream.send({ message: { $case: 'hello', value: { routerId: this.#options.routerId } } });
        for await (const { message } of this.#stream.messages) {
          pauseMs = RECONNECT_MS.first;
          this.#receive(message);
        }
      } catch (thrown) {
        reason = statusFromGrpc(thrown).message;
      }
      this.#disconnect(reason);
      await this.#options.clock.sleep(pauseMs, signal).catch(() => {}); // closing ends the loop above
      pauseMs = Math.min(pauseMs * 2, RECONNECT_MS.max);
    }
  }

  #receive(message: FromNode['message']): void {
    switch (message?.$case) {
      case 'slots': {
        const { accepting, busyCount, maxPauseMs } = message.value;
        const slotCount = Math.min(message.value.slotCount, MAX_SLOT_COUNT);
        const nextFreeMs = within(message.value.nextFreeMs, MAX_FREE_IN_MS);
        const freeCount = Math.max(0, slotCount - busyCount);
        // When a busy slot will be free moves often, and starts nobody.
        const isNews = !this.#connected || accepting !== this.accepting || slotCount !== this.#slotCount || freeCount !== this.#freeCount;
        this.#connected = true;
        this.#complaint = '';
        this.#accepting = accepting;
        this.#refusedUntil = 0;
        this.#slotCount = slotCount;
        this.#freeCount = freeCount;
        this.#nextFreeAt = this.#options.clock.now() + nextFreeMs;
        this.#maxPauseMs = within(maxPauseMs, MAX_FREE_IN_MS);
        return isNews ? this.#options.onChange() : undefined;
      }
      case 'grant':
        this.#standingBid = undefined;
        return this.#options.onGrant(message.value.leaseId, preemptionOf(message.value.preemption));
      case 'served': {
        const { priority, tenant, costMs, actedFor } = message.value;
        const known = priorityName(priority);
        if (known && costMs > 0) this.#options.onServed({ priority: known, tenant, costMs: within(costMs, MAX_SERVED_MS), actedFor });
        return;
      }
      case undefined:
        return; // a newer node may say things we do not know yet
    }
  }

  #disconnect(reason: string): void {
    const was = this.#connected;
    this.#stream = undefined;
    this.#connected = false;
    this.#accepting = false;
    this.#freeCount = 0;
    this.#standingBid = undefined;
    if (!this.#closing.signal.aborted) {
      if (was) this.#options.onLost(reason);
      else if (reason !== this.#complaint) this.#options.onUnreached(reason);
      this.#complaint = reason;
    }
    if (was) this.#options.onChange();
  }
}

/** A class that is not known is taken for the most urgent one: fewer requests may use the grant. */
function preemptionOf(message: nodeContract.Preemption | undefined): Preemption | undefined {
  return message && { priority: priorityName(message.priority) ?? 'high', maxCostMs: message.maxCostMs };
}

/** From 0 to `max`; 0 for what is no number. */
function within(value: number, max: number): number {
  return Number.isNaN(value) ? 0 : Math.min(Math.max(value, 0), max);
}
