/**
 * May a new request wait, and who makes room for it? The queue has a limit for all and one for each class, so
 * that no wait grows without end; what cannot be finished in time is refused before it costs anybody anything.
 */
import { type Clock, Code, Reason, StatusError } from '#core';
import type { CostModel, Priority, WaitQueue } from '#scheduling';
import type { Fleet } from './fleet.js';
import { etaMs, startClock } from './forecast.js';
import type { Ticket } from './ticket.js';

export interface QueueLimits {
  /** Waiting requests for each slot of the mesh … */
  readonly perSlotCount: number;
  /** … and at least so many. */
  readonly minCount: number;
  /** Part of that which each class may fill. */
  readonly classRatio: Readonly<Record<Priority, number>>;
}

export interface ShedOptions {
  readonly clock: Clock;
  readonly fleet: Fleet;
  readonly queue: WaitQueue<Ticket>;
  readonly cost: CostModel;
  readonly limits: QueueLimits;
}

/** Who is to be refused, and with what. */
export interface Shed {
  readonly who: Ticket;
  readonly error: StatusError;
}

/** Who could start at once is refused only when the prediction would have to be wrong by this much. */
const IDLE_MARGIN_RATIO = 2;
/** Whoever was refused comes back no sooner. */
const MIN_RETRY_MS = 500;

/** Undefined: it may wait. Else it is refused itself, or in its place a less urgent one that waits. */
export function shed(ticket: Ticket, options: ShedOptions): Shed | undefined {
  const { fleet, limits, queue } = options;
  const isIdle = fleet.hasIdleBeyond(queue.size);
  const hopeless = deadlineRefusal(ticket, isIdle ? IDLE_MARGIN_RATIO : 1, options);
  if (hopeless) return { who: ticket, error: hopeless };
  if (isIdle) return undefined;
  const limit = Math.max(limits.minCount, Math.floor(limits.perSlotCount * fleet.slotCount()));
  const classLimit = Math.floor(limits.classRatio[ticket.priority] * limit);
  const classCount = queue.countOf(ticket.priority);
  if (classCount >= classLimit) return { who: ticket, error: queueFull(classCount, classLimit, options) };
  if (queue.size < limit) return undefined;
  return { who: queue.leastUrgentBelow(ticket.priority) ?? ticket, error: queueFull(queue.size, limit, options) };
}

function deadlineRefusal(ticket: Ticket, marginRatio: number, options: ShedOptions): StatusError | undefined {
  const { clock, cost } = options;
  if (ticket.deadlineAt === Number.POSITIVE_INFINITY || !cost.knows(ticket.work.model)) return undefined;
  const finishMs = etaMs(ticket, options);
  const leftMs = ticket.deadlineAt - clock.now();
  if (finishMs <= marginRatio * leftMs) return undefined;
  return new StatusError({
    code: Code.FAILED_PRECONDITION,
    reason: Reason.DEADLINE_UNREACHABLE,
    message: `the picture is predicted to be finished in ${Math.round(finishMs)} ms, the caller waits ${Math.round(leftMs)} ms`,
    metadata: { predicted_ms: String(Math.round(finishMs)), left_ms: String(Math.round(leftMs)) },
  });
}

function queueFull(waitingCount: number, limit: number, { fleet, queue }: ShedOptions): StatusError {
  return new StatusError({
    code: Code.RESOURCE_EXHAUSTED,
    reason: Reason.QUEUE_FULL,
    message: `expected room among ${limit} waiting requests, got ${waitingCount} waiting already`,
    retryDelayMs: Math.max(MIN_RETRY_MS, Math.round(startClock(fleet)(queue.costMs))),
    metadata: { limit: String(limit), waiting: String(waitingCount) },
  });
}
