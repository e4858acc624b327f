/**
 * Which request goes next? One ordered queue for the whole router; nothing ever waits in line behind
 * a single GPU, so what dies with a node is at most what that node was running.
 *
 * The order, from the outside in: class (ClassShares), then tenant (FairClock), then the earliest
 * virtual deadline: arrival + patience × predicted time, or the caller's own deadline when that is sooner.
 * Short requests therefore pass long ones, but none for ever: a deadline comes nearer while others are
 * set later. A request that has waited long moves up a class.
 *
 * Nodes may differ in what they can take. Requests that any node treats alike are of one kind, and within a
 * tenant each kind is kept by itself: the best request for a node is found among as many as there are kinds,
 * however many of the wrong kind stand before it.
 *
 * Pure: time comes in as an argument. Every change costs O(log n).
 */
import { ClassShares, PRIORITIES, type Priority, type Shares } from './class-shares.js';
import { FairClock } from './fair-clock.js';
import { Heap } from './heap.js';
import type { Bid } from './preemption.js';

export interface Waiting {
  /** Rises by one with every request of this router; decides between equals. */
  readonly arrival: number;
  /** Clock milliseconds. */
  readonly arrivedAt: number;
  readonly priority: Priority;
  readonly tenant: string;
  /** Predicted GPU time, milliseconds. */
  readonly costMs: number;
  /** When the caller stops waiting, clock milliseconds; Infinity: never. */
  readonly deadlineAt: number;
}

export interface WaitQueueOptions<Entry> {
  readonly shares: Shares;
  /** A request that has waited this long in a class moves up to the next; Infinity: never. */
  readonly promoteAfterMs: number;
  /** The virtual deadline comes after this many times the predicted time; 0: first come, first served. */
  readonly patienceFactor: number;
  /** Equal for requests that fit the same takers. Fixed while a request waits. */
  readonly kindOf: (entry: Entry) => string;
}

/** GPU time given to somebody: what fairness and shares are counted in. */
export interface Service {
  readonly priority: Priority;
  readonly tenant: string;
  readonly costMs: number;
}

/** A request in its class. */
interface Place<Entry> {
  readonly entry: Entry;
  readonly dueAt: number;
  readonly line: Line<Entry>;
  readonly kind: Kind<Entry>;
  /** When it came into this class. */
  readonly since: number;
}

/** What one tenant has waiting in one class, of one kind. */
interface Kind<Entry> {
  readonly name: string;
  readonly places: Heap<Place<Entry>>;
}

/** What one tenant has waiting in one class. */
interface Line<Entry> {
  readonly tenant: string;
  readonly level: Level<Entry>;
  readonly kinds: Heap<Kind<Entry>>;
  readonly byKind: Map<string, Kind<Entry>>;
  /** Its turn, virtual milliseconds. */
  tag: number;
}

/** One class. */
interface Level<Entry> {
  readonly priority: Priority;
  readonly clock: FairClock;
  readonly lines: Heap<Line<Entry>>;
  readonly byTenant: Map<string, Line<Entry>>;
  readonly byAge: Heap<Place<Entry>>;
  readonly byYouth: Heap<Place<Entry>>;
  /** Of all that wait in it. */
  costMs: number;
}

export class WaitQueue<Entry extends Waiting> {
  readonly #shares: ClassShares;
  readonly #promoteAfterMs: number;
  readonly #patienceFactor: number;
  readonly #kindOf: (entry: Entry) => string;
  readonly #levels: Readonly<Record<Priority, Level<Entry>>>;
  readonly #places = new Map<Entry, Place<Entry>>();
  /** Who waits, by kind. */
  readonly #kinds = new Map<string, Set<Entry>>();

  constructor(options: WaitQueueOptions<Entry>) {
    this.#shares = new ClassShares(options.shares);
    this.#promoteAfterMs = options.promoteAfterMs;
    this.#patienceFactor = options.patienceFactor;
    this.#kindOf = options.kindOf;
    this.#levels = { high: newLevel('high'), normal: newLevel('normal'), low: newLevel('low') };
  }

  get size(): number {
    return this.#places.size;
  }

  /** Requests that wait in a class now; those promoted into it included. */
  countOf(priority: Priority): number {
    return this.#levels[priority].byAge.size;
  }

  /** The request that should go next. */
  get head(): Entry | undefined {
    return this.first(() => true);
  }

  /** A request that comes back (busy node, retry) has its old arrival and so regains its place. */
  add(entry: Entry): void {
    this.#enter(entry, entry.priority, entry.arrivedAt);
  }

  /** It leaves unserved. False when it was not waiting. */
  remove(entry: Entry): boolean {
    const place = this.#places.get(entry);
    if (!place) return false;
    this.#places.delete(entry);
    const { kind, line } = place;
    const { level } = line;
    this.#kinds.get(kind.name)?.delete(entry);
    if (this.#kinds.get(kind.name)?.size === 0) this.#kinds.delete(kind.name);
    level.byAge.remove(place);
    level.byYouth.remove(place);
    level.costMs -= entry.costMs;
    kind.places.remove(place);
    if (kind.places.size > 0) line.kinds.moved(kind);
    else {
      line.kinds.remove(kind);
      line.byKind.delete(kind.name);
    }
    if (line.kinds.size > 0) level.lines.moved(line);
    else {
      level.lines.remove(line);
      level.byTenant.delete(line.tenant);
    }
    if (level.byAge.size > 0) return true;
    this.#shares.clear(level.priority);
    level.costMs = 0; // what rounding has left
    return true;
  }

  /** It leaves to be served: what that is counted as, or undefined when it was not waiting. */
  take(entry: Entry): Service | undefined {
    const place = this.#places.get(entry);
    if (!place) return undefined;
    const service: Service = { priority: place.line.level.priority, tenant: entry.tenant, costMs: entry.costMs };
    this.served(service);
    this.remove(entry);
    return service;
  }

  /** GPU time was given, by this router or, told by nodes, by another. */
  served({ priority, tenant, costMs }: Service): void {
    const waiting = PRIORITIES.filter((each) => this.#levels[each].byAge.size > 0);
    this.#shares.serve(priority, costMs, waiting);
    const level = this.#levels[priority];
    const line = level.byTenant.get(tenant);
    const next = level.clock.serve(tenant, costMs, line?.tag);
    if (line) this.#moveLine(line, next);
  }

  /** A service turned out to cost `byMs` more or, negative, less: taken into account for its tenant. */
  correct({ priority, tenant, costMs: byMs }: Service): void {
    const level = this.#levels[priority];
    const line = level.byTenant.get(tenant);
    const next = level.clock.correct(tenant, byMs, line?.tag);
    if (line) this.#moveLine(line, next);
  }

  /** Moves up who has waited long. Cheap when nobody has. */
  promote(nowMs: number): void {
    for (const [upper, lower] of [
      ['high', 'normal'],
      ['normal', 'low'],
    ] as const) {
      for (;;) {
        const oldest = this.#levels[lower].byAge.head;
        if (!oldest || nowMs - oldest.since < this.#promoteAfterMs) break;
        this.remove(oldest.entry);
        this.#enter(oldest.entry, upper, nowMs);
      }
    }
  }

  /** The best request that `fits`, which one of a kind answers for all; it stays in the queue. */
  first(fits: (entry: Entry) => boolean): Entry | undefined {
    for (const level of this.#levelsInOrder()) {
      for (const line of level.lines.inOrder()) {
        for (const { places } of line.kinds.inOrder()) if (places.head && fits(places.head.entry)) return places.head.entry;
      }
    }
    return undefined;
  }

  /** How many there are of its kind and tenant in its class. */
  countLike(entry: Entry): number {
    return this.#places.get(entry)?.kind.places.size ?? 0;
  }

  /** The one that has so many of its kind and tenant before it; 0 is the first. O(n log n) in that number. */
  nthLike(entry: Entry, index: number): Entry | undefined {
    let before = 0;
    for (const place of this.#places.get(entry)?.kind.places.inOrder() ?? []) if (before++ === index) return place.entry;
    return undefined;
  }

  /** One waiting request of each kind. */
  *oneOfEachKind(): Generator<Entry, void> {
    for (const [entry] of this.#kinds.values()) if (entry) yield entry;
  }

  /** Undefined when it does not wait. */
  bidOf(entry: Entry): Bid | undefined {
    const place = this.#places.get(entry);
    if (!place) return undefined;
    const { line, dueAt } = place;
    const rank = this.#isOwed(line.level) ? 0 : 1 + PRIORITIES.indexOf(line.level.priority);
    const { costMs, priority } = entry;
    return { rank, leadMs: line.level.clock.leadMs(line.tag), dueAt, priority, costMs };
  }

  /** Who is pushed out for a request of `priority`: the newest of the lowest class, if that is a lower one. */
  leastUrgentBelow(priority: Priority): Entry | undefined {
    for (const lowest of [...PRIORITIES].reverse()) {
      if (lowest === priority) return undefined;
      const newest = this.#levels[lowest].byYouth.head;
      if (newest) return newest.entry;
    }
    return undefined;
  }

  /**
   * GPU time that goes before a request like this one: all of more urgent classes, and in its own what is
   * due sooner. O(n) in its class.
   */
  costAheadMs(entry: Entry, competes: (other: Entry) => boolean): number {
    const dueAt = this.#dueAtOf(entry);
    let aheadMs = 0;
    for (const priority of PRIORITIES) {
      const isOwn = priority === entry.priority;
      for (const { entry: other, dueAt: otherDueAt } of this.#levels[priority].byAge) {
        if (other !== entry && (!isOwn || otherDueAt <= dueAt) && competes(other)) aheadMs += other.costMs;
      }
      if (isOwn) break;
    }
    return aheadMs;
  }

  /** GPU time of all that wait. */
  get costMs(): number {
    return PRIORITIES.reduce((sum, priority) => sum + this.#levels[priority].costMs, 0);
  }

  /** In the order of their turn, as far as it can be told now. O(n log n). */
  *[Symbol.iterator](): Generator<Entry, void> {
    for (const level of this.#levelsInOrder()) yield* turnsOf(level);
  }

  #enter(entry: Entry, priority: Priority, since: number): void {
    const level = this.#levels[priority];
    const line = level.byTenant.get(entry.tenant) ?? newLine(level, entry.tenant);
    const kindName = this.#kindOf(entry);
    const kind = line.byKind.get(kindName) ?? newKind(line, kindName);
    const place: Place<Entry> = { entry, dueAt: this.#dueAtOf(entry), line, kind, since };
    this.#kinds.set(kindName, (this.#kinds.get(kindName) ?? new Set()).add(entry));
    level.costMs += entry.costMs;
    kind.places.add(place);
    if (line.kinds.has(kind)) line.kinds.moved(kind);
    else line.kinds.add(kind);
    level.byAge.add(place);
    level.byYouth.add(place);
    if (level.lines.has(line)) level.lines.moved(line);
    else level.lines.add(line);
    this.#places.set(entry, place);
  }

  #dueAtOf(entry: Entry): number {
    return Math.min(entry.arrivedAt + this.#patienceFactor * entry.costMs, entry.deadlineAt);
  }

  #moveLine(line: Line<Entry>, tag: number): void {
    line.tag = tag;
    line.level.lines.moved(line);
  }

  #levelsInOrder(): Level<Entry>[] {
    const levels = PRIORITIES.map((priority) => this.#levels[priority]).filter((level) => level.byAge.size > 0);
    const owed = levels.filter((level) => this.#isOwed(level));
    return [...owed, ...levels.filter((level) => !owed.includes(level))];
  }

  #isOwed(level: Level<Entry>): boolean {
    const next = level.lines.head && headOf(level.lines.head);
    return next !== undefined && this.#shares.owes(level.priority, next.entry.costMs);
  }
}

function newLevel<Entry extends Waiting>(priority: Priority): Level<Entry> {
  return {
    priority,
    clock: new FairClock(),
    lines: new Heap<Line<Entry>>(lineBefore),
    byTenant: new Map(),
    byAge: new Heap((a, b) => (a.since === b.since ? a.entry.arrival < b.entry.arrival : a.since < b.since)),
    byYouth: new Heap((a, b) => a.entry.arrival > b.entry.arrival),
    costMs: 0,
  };
}

function newLine<Entry extends Waiting>(level: Level<Entry>, tenant: string): Line<Entry> {
  const line: Line<Entry> = { tenant, level, kinds: new Heap<Kind<Entry>>(kindBefore), byKind: new Map(), tag: level.clock.tagOf(tenant) };
  level.byTenant.set(tenant, line);
  return line;
}

function newKind<Entry extends Waiting>(line: Line<Entry>, name: string): Kind<Entry> {
  const kind: Kind<Entry> = { name, places: new Heap<Place<Entry>>(placeBefore) };
  line.byKind.set(name, kind);
  return kind;
}

function headOf<Entry extends Waiting>(line: Line<Entry>): Place<Entry> | undefined {
  return line.kinds.head?.places.head;
}

/** What two places are compared by. */
interface Ranked {
  readonly dueAt: number;
  readonly entry: Waiting;
}

function placeBefore(a: Ranked, b: Ranked): boolean {
  return a.dueAt === b.dueAt ? a.entry.arrival < b.entry.arrival : a.dueAt < b.dueAt;
}

function kindBefore<Entry extends Waiting>(a: Kind<Entry>, b: Kind<Entry>): boolean {
  return isBefore(a.places.head, b.places.head);
}

/** Between tenants whose turn is the same, the more urgent request decides. */
function lineBefore<Entry extends Waiting>(a: Line<Entry>, b: Line<Entry>): boolean {
  return a.tag === b.tag ? isBefore(headOf(a), headOf(b)) : a.tag < b.tag;
}

function isBefore(a: Ranked | undefined, b: Ranked | undefined): boolean {
  return a !== undefined && b !== undefined && placeBefore(a, b);
}

/** Turn by turn: each request moves its tenant's tag on. */
function* turnsOf<Entry extends Waiting>(level: Level<Entry>): Generator<Entry, void> {
  const turns = new Heap<{ tag: number; place: Place<Entry>; rest: Iterator<Place<Entry>> }>((a, b) =>
    a.tag === b.tag ? placeBefore(a.place, b.place) : a.tag < b.tag,
  );
  const next = (tag: number, rest: Iterator<Place<Entry>>) => {
    const { done, value: place } = rest.next();
    if (!done) turns.add({ tag, place, rest });
  };
  for (const line of level.lines) next(line.tag, inOrder(line));
  for (let turn = turns.head; turn; turn = turns.head) {
    const { entry } = turn.place;
    yield entry;
    turns.remove(turn);
    next(turn.tag + entry.costMs, turn.rest);
  }
}

/** All kinds of a line as one. */
function* inOrder<Entry extends Waiting>(line: Line<Entry>): Generator<Place<Entry>, void> {
  const heads = new Heap<{ place: Place<Entry>; rest: Iterator<Place<Entry>> }>((a, b) => placeBefore(a.place, b.place));
  const next = (rest: Iterator<Place<Entry>>) => {
    const { done, value: place } = rest.next();
    if (!done) heads.add({ place, rest });
  };
  for (const { places } of line.kinds) next(places.inOrder());
  for (let head = heads.head; head; head = heads.head) {
    yield head.place;
    heads.remove(head);
    next(head.rest);
  }
}
