/**
 * Which waiting request starts now on an idle node, and where? In the order of the queue each goes where it is
 * predicted to finish first (placement.ts). Two things make that more than a look at the head:
 *
 * - Who waits for a busy node is in the way of the next that would. With enough of them ahead, a node that is slow
 *   or must load the model first is sooner after all.
 * - A load puts out a model that others may want. A request that needs one lets those of its class go first that
 *   need none, for as long as its load or its run would take, whichever is longer. So two nodes with requests for
 *   two models end up with one each, and one node draws at least as long as it loads.
 */
import { PRIORITIES } from './class-shares.js';
import type { Candidate, Placement } from './placement.js';
import type { Waiting, WaitQueue } from './wait-queue.js';

export interface Start<Entry> {
  readonly entry: Entry;
  readonly on: Candidate;
}

export interface StartOptions<Entry> {
  /** Whether it may start now at all. */
  readonly fits: (entry: Entry) => boolean;
  /** Equal for requests that any node treats alike: each kind is placed once. */
  readonly kindOf: (entry: Entry) => string;
  /** Undefined: not now. */
  readonly placementOf: (entry: Entry) => Placement | undefined;
  readonly modelOf: (entry: Entry) => string;
  /** Whether the load that would be made for it may be put off, here and now. */
  readonly mayPutOff: (start: Start<Entry>) => boolean;
}

/** Undefined when nobody should start. The queue stays as it is. */
export function nextStart<Entry extends Waiting>(
  queue: Pick<WaitQueue<Entry>, 'first' | 'countLike' | 'nthLike'>,
  options: StartOptions<Entry>,
): Start<Entry> | undefined {
  const placements = new Map<string, Placement | undefined>();
  const aheadMs = new Map<string, number>();
  let putOff: Start<Entry> | undefined;
  let chosen: Start<Entry> | undefined;
  const consider = (start: Start<Entry>): void => {
    const { entry, on } = start;
    if (on.loadMs === 0) {
      if (!putOff || !isBelow(entry, putOff.entry)) chosen = start;
    } else if (!putOff) {
      if (options.mayPutOff(start)) putOff = start;
      else chosen = start;
    }
  };
  queue.first((entry) => {
    if (!options.fits(entry)) return false;
    const kind = options.kindOf(entry);
    if (!placements.has(kind)) placements.set(kind, options.placementOf(entry));
    const placement = placements.get(kind);
    if (placement?.kind === 'start') consider({ entry, on: placement.on });
    else if (placement) {
      const model = options.modelOf(entry);
      const ahead = aheadMs.get(model) ?? 0;
      const waitingCount = queue.countLike(entry);
      aheadMs.set(model, ahead + waitingCount * entry.costMs);
      // The first of its kind that has enough ahead of it.
      const index = Math.max(0, Math.ceil(placement.soonerCount - ahead / entry.costMs));
      const further = placement.or && index < waitingCount ? queue.nthLike(entry, index) : undefined;
      if (further && placement.or) consider({ entry: further, on: placement.or });
    }
    return chosen !== undefined;
  });
  return chosen ?? putOff;
}

function isBelow(entry: Waiting, other: Waiting): boolean {
  return PRIORITIES.indexOf(entry.priority) > PRIORITIES.indexOf(other.priority);
}
