/**
 * InferenceNodeService.Attach: one router's stream. It carries slot states and grants out, bids and
 * declines in. A router that attaches again replaces its earlier stream, so that the bid of a
 * connection which died unnoticed is never granted.
 */
import { type node, PRIORITY_MESSAGES, priorityName } from '#contracts';
import { type Clock, Code, type Emit, Reason, StatusError } from '#core';
import type { DuplexHandler } from '#grpc';
import type { Bid, Service } from '#scheduling';
import type { Slot } from '../domain/slot.js';
import type { NodeEvent } from '../events.js';

export interface AttachParts {
  readonly slot: Slot;
  readonly clock: Clock;
  readonly emit: Emit<NodeEvent>;
  readonly routers: AttachedRouters;
}

interface Attachment {
  readonly routerId: string;
  readonly tellSlots: () => void;
  readonly tellServed: (served: Served) => void;
  readonly end: (reason: StatusError) => void;
}

/** GPU time that a request was given. */
export interface Served extends Service {
  /** Somebody asked in the tenant's name: no request of its own. */
  readonly actedFor: boolean;
}

/** Everyone who wants to hear about the slot. */
export class AttachedRouters {
  readonly #attachments = new Set<Attachment>();
  #told = true;

  get count(): number {
    return this.#attachments.size;
  }

  add(attachment: Attachment): void {
    for (const earlier of this.#attachments) if (earlier.routerId === attachment.routerId) earlier.end(replacedError());
    this.#attachments.add(attachment);
  }

  remove(attachment: Attachment): void {
    this.#attachments.delete(attachment);
  }

  /** GPU time goes to a request of one router; the others count it too. */
  served(byRouterId: string, served: Served): void {
    for (const attachment of this.#attachments) if (attachment.routerId !== byRouterId) attachment.tellServed(served);
  }

  /** Changes of one turn of the event loop become one message. */
  slotChanged(): void {
    if (!this.#told) return;
    this.#told = false;
    setImmediate(() => {
      this.#told = true;
      for (const attachment of this.#attachments) attachment.tellSlots();
    });
  }
}

export function attach({ slot, clock, emit, routers }: AttachParts): DuplexHandler<node.AttachRequest, node.AttachResponse> {
  return async (call, out) => {
    const messages = call.request[Symbol.asyncIterator]();
    const routerId = await readHello(messages);
    const write = (message: node.AttachResponse) => void out.write(message).catch(() => {}); // a stream that is over ends below
    const bidder = slot.join({
      onGrant: ({ leaseId, ttlMs, preemption: limits }) => {
        emit({ type: 'slotGranted', routerId, leaseId });
        const preemption = limits && { ...limits, priority: PRIORITY_MESSAGES[limits.priority] };
        write({ message: { $case: 'grant', value: { leaseId, ttlMs, preemption } } });
      },
      onLapse: (lapse) => emit({ type: 'grantLapsed', routerId, ...lapse }),
    });
    const replaced = new AbortController();
    const attachment: Attachment = {
      routerId,
      tellSlots: () => write({ message: { $case: 'slots', value: slot.snapshot } }),
      tellServed: ({ priority, ...served }) =>
        write({ message: { $case: 'served', value: { priority: PRIORITY_MESSAGES[priority], ...served } } }),
      end: (reason) => replaced.abort(reason),
    };
    routers.add(attachment);
    attachment.tellSlots();
    emit({ type: 'routerAttached', routerId, peer: call.peer });
    try {
      await listen(messages, bidder, clock, AbortSignal.any([call.signal, replaced.signal]));
    } finally {
      routers.remove(attachment);
      bidder.leave();
      emit({ type: 'routerLeft', routerId });
    }
  };
}

type Messages = AsyncIterator<node.AttachRequest>;
type Bidder = ReturnType<Slot['join']>;

async function readHello(messages: Messages): Promise<string> {
  const first = await messages.next();
  const message = first.done ? undefined : first.value.message;
  if (message?.$case !== 'hello' || message.value.routerId === '') {
    throw new StatusError({
      code: Code.INVALID_ARGUMENT,
      reason: Reason.BAD_REQUEST,
      message: `expected Hello with a router_id first, got ${message?.$case ?? 'nothing'}`,
    });
  }
  return message.value.routerId;
}

/** Returns when the router ends its side; rejects at once when the stream is cut, though the router is silent. */
async function listen(messages: Messages, bidder: Bidder, clock: Clock, cut: AbortSignal): Promise<void> {
  const over = new Promise<never>((_, reject) => {
    if (cut.aborted) reject(cut.reason);
    else cut.addEventListener('abort', () => reject(cut.reason), { once: true });
  });
  // One race for a whole stream: `over` would remember a race for each message until the stream ends.
  await Promise.race([obey(messages, bidder, clock), over]);
}

/** Of a stream that was cut, the bidder has left: what still comes does nothing. */
async function obey(messages: Messages, bidder: Bidder, clock: Clock): Promise<void> {
  for (;;) {
    const next = await messages.next();
    if (next.done) return;
    const { message } = next.value;
    if (message?.$case === 'bid') bidder.bid(bidOf(message.value, clock.now()));
    else if (message?.$case === 'decline') bidder.decline(message.value.leaseId);
  }
}

/** Undefined when the router has nothing for this node any more. Figures that are no numbers are the least urgent. */
function bidOf(bid: node.Bid, nowMs: number): Bid | undefined {
  if (bid.backlogCount === 0) return undefined;
  const number = (value: number) => (Number.isNaN(value) ? Number.POSITIVE_INFINITY : value);
  return {
    rank: bid.rank,
    leadMs: number(bid.leadMs),
    dueAt: nowMs + number(bid.slackMs),
    // Of a router that does not say, nobody is paused for the request.
    priority: priorityName(bid.priority) ?? 'low',
    costMs: bid.costMs > 0 ? bid.costMs : Number.POSITIVE_INFINITY,
  };
}

function replacedError(): StatusError {
  return new StatusError({
    code: Code.ABORTED,
    reason: Reason.CONNECTION_LOST,
    message: 'the same router attached again; this stream is the older one',
  });
}
