/** When does waiting work start, and when would a request that comes now be finished? */
import { backlogClock, type WaitQueue } from '#scheduling';
import type { Fleet } from './fleet.js';
import type { FleetNode } from './fleet-node.js';
import type { Ticket } from './ticket.js';

/** For an amount of work that waits for these nodes, the time until what comes next starts; both in milliseconds. */
export function startClock(nodes: Iterable<FleetNode>): (aheadMs: number) => number {
  const freeInMs: number[] = [];
  for (const { link, usable } of nodes) {
    if (!usable) continue;
    for (let slot = 0; slot < link.slotCount; slot++) freeInMs.push(slot < link.freeCount ? 0 : link.freeInMs);
  }
  return backlogClock(freeInMs);
}

/** Predicted time until a request arriving now would be finished, milliseconds. */
export function etaMs(ticket: Ticket, { fleet, queue }: { readonly fleet: Fleet; readonly queue: WaitQueue<Ticket> }): number {
  const served = fleet.model(ticket.work.model, ticket.revision);
  const ownMs = (served && served.loadedCount === 0 ? served.loadMs : 0) + ticket.costMs;
  if (fleet.hasIdleBeyond(queue.size)) return ownMs;
  const takers = [...fleet].filter((node) => node.canTake(ticket));
  const models = new Set(takers.flatMap(({ beat }) => beat.models.map(({ name }) => name)));
  const aheadMs = queue.costAheadMs(ticket, ({ work }) => models.has(work.model));
  return startClock(takers)(aheadMs) + ownMs;
}
