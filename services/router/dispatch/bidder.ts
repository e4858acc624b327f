/**
 * What do busy nodes hear of the work we hold? A bid where it is worth one: the node grants the slot that frees to the
 * best bid of all routers (libs/scheduling), and who runs there is decided only then (dispatcher.ts).
 */
import type { Clock } from '#core';
import type { Bid, WaitQueue } from '#scheduling';
import type { Fleet } from './fleet.js';
import type { FleetNode } from './fleet-node.js';
import { needsOf, type Ticket } from './ticket.js';

export interface BidderOptions {
  readonly clock: Clock;
  readonly fleet: Fleet;
  readonly queue: WaitQueue<Ticket>;
}

/** A node that may be bid at, and what we hold for it. */
interface Busy {
  readonly node: FleetNode;
  readonly best: Bid;
  readonly freeInMs: number;
}

/**
 * A standing bid whose figures are off by more than this is replaced; the part for each node keeps a large
 * mesh at 4,000 replacements a second.
 */
const BID_NEWS_MS = 25;
const BID_NEWS_MS_PER_NODE = 0.25;
/** What a node that frees later was told may grow old: it is put right at a later look, before the node grants ahead. */
const NEWS_HORIZON_MS = 250;
/** A request more urgent than the standing bids is told to so many nodes, those that are free soonest. */
const URGENT_NEWS_COUNT = 4;
/**
 * Bids beyond the number of waiting requests: other routers bid at the same nodes, and one that frees with no
 * bid of ours is idle before we can say how urgent our request is.
 */
const SPARE_BID_COUNT = 3;
/** A look at a node takes a fifth of a microsecond: with this pause, bids cost two hundredths of a core in any mesh. */
const BID_PAUSE_MS_PER_NODE = 0.01;
const MIN_BID_PAUSE_MS = 1;

export class Bidder {
  readonly #options: BidderOptions;
  #cancel: (() => void) | undefined;
  #nextAt = Number.NEGATIVE_INFINITY;

  constructor({ clock, fleet, queue }: BidderOptions) {
    this.#options = { clock, fleet, queue };
  }

  /** Every bid looks at every node: at once in a small mesh, as seldom as bearable in a large one. */
  bidInTime(): void {
    const { clock, fleet } = this.#options;
    const waitMs = this.#nextAt - clock.now();
    if (waitMs > 0) {
      this.#cancel ??= clock.schedule(waitMs, () => {
        this.#cancel = undefined;
        this.bidInTime();
      });
      return;
    }
    const pauseMs = BID_PAUSE_MS_PER_NODE * fleet.size;
    if (pauseMs > MIN_BID_PAUSE_MS) this.#nextAt = clock.now() + pauseMs;
    this.#bidForBusyNodes();
  }

  /**
   * Bids where slots free soonest, at a few nodes more than requests wait: a thousand nodes do not mean a thousand
   * messages. A node that another router has won frees late, and the next soonest is bid at instead; the
   * older bid stays, for nobody knows who wins next.
   */
  #bidForBusyNodes(): void {
    const { fleet, queue } = this.#options;
    const needs = new Map<string, Ticket>();
    for (const ticket of queue.oneOfEachKind()) needs.set(needsOf(ticket), ticket);
    // Nodes that could take the same requests are served alike: looked up once, not for each of a thousand.
    const known = new Map<string, Bid | undefined>();
    const bestFor = (node: FleetNode) => {
      const takes = [...needs.values()].map((ticket) => (node.canTake(ticket) ? '1' : '0')).join('');
      if (!known.has(takes)) known.set(takes, this.#bestFor(node));
      return known.get(takes);
    };
    const moreUrgent: Busy[] = [];
    const busy: Busy[] = [];
    for (const node of fleet) {
      const { link } = node;
      // An idle node that was passed over has a faster one behind it: not worth a bid.
      if (!link.bidding && (needs.size === 0 || link.freeCount > 0 || !node.usable)) continue;
      const best = bestFor(node);
      if (best) busy.push({ node, best, freeInMs: link.freeInMs });
      if (!link.bidding) continue;
      if (!best) link.withdraw();
      else {
        const changed = this.#changeOf(node, best);
        if (changed === 'less' && link.freeInMs < NEWS_HORIZON_MS) link.bid(queue.size, best);
        else if (changed === 'more') moreUrgent.push({ node, best, freeInMs: link.freeInMs });
      }
    }
    for (const { node, best } of soonestFree(moreUrgent, URGENT_NEWS_COUNT)) node.link.bid(queue.size, best);
    const count = queue.size === 0 ? 0 : queue.size + SPARE_BID_COUNT;
    for (const { node, best } of soonestFree(busy, count)) if (!node.link.bidding) node.link.bid(queue.size, best);
  }

  #bestFor(node: FleetNode): Bid | undefined {
    const { queue } = this.#options;
    const best = queue.first((ticket) => node.canTake(ticket));
    return best && queue.bidOf(best);
  }

  /**
   * A bid made for a request that has since started elsewhere claims an urgency we no longer hold, and would
   * take a slot from a more urgent request of another router. Small differences are not news.
   */
  #changeOf(node: FleetNode, now: Bid): 'less' | 'more' | undefined {
    const told = node.link.standingBid;
    const newsMs = BID_NEWS_MS + BID_NEWS_MS_PER_NODE * this.#options.fleet.size;
    if (!told) return 'less';
    if (told.rank !== now.rank) return now.rank < told.rank ? 'more' : 'less';
    // Every service moves leads by its cost, and is told to all routers alike.
    if (Math.abs(now.leadMs - told.leadMs) > Math.max(newsMs, now.costMs)) return now.leadMs < told.leadMs ? 'more' : 'less';
    if (Math.abs(now.dueAt - told.dueAt) > newsMs) return now.dueAt < told.dueAt ? 'more' : 'less';
    return undefined;
  }

  close(): void {
    this.#cancel?.();
  }
}

/** At most so many, the soonest first; in no order when that is all of them. */
function soonestFree(nodes: Busy[], count: number): readonly Busy[] {
  if (nodes.length <= count) return nodes;
  return count <= 0 ? [] : nodes.sort((a, b) => a.freeInMs - b.freeInMs).slice(0, count);
}
