/**
 * Which of this replica's jobs goes to a router next, and when? Those that may run stand in one order (libs/scheduling:
 * class, then tenants fairly, then age). Only as many are handed over as the mesh will soon have slots for: what waits
 * at a router is in the mesh's one order of work, and what waits here can still change hands.
 *
 * A job whose worker has died is taken back by whoever owns it now. That is no failure of the job.
 */
import type { Clock, Emit, Random } from '#core';
import { type Service, type Shares, type Waiting, WaitQueue } from '#scheduling';
import { pauseMs } from '../domain/failures.js';
import type { JobsEvent } from '../events.js';
import type { JobEntry } from '../index/job-entry.js';
import type { JobIndex } from '../index/job-index.js';
import type { JobRecords } from '../store/job-records.js';
import { Agenda } from './agenda.js';
import type { Attempt, AttemptEnd, AttemptListener } from './attempt.js';
import { Gates, type Passer } from './gates.js';
import type { ShareListener } from './share.js';

export interface RunnerOptions {
  readonly clock: Clock;
  readonly wallNow: () => number;
  readonly random: Random;
  readonly emit: Emit<JobsEvent>;
  readonly records: Pick<JobRecords, 'changeJob'>;
  /** This life of this replica, as records name it. */
  readonly worker: string;
  readonly isAlive: (worker: string) => boolean;
  readonly isMine: (key: string) => boolean;
  readonly index: Pick<JobIndex, 'get' | 'isHeld'>;
  readonly attempt: (entry: JobEntry, told: AttemptListener) => Attempt;
  /** NATS is there, and the records are followed. */
  readonly mayStart: () => boolean;
  /** This replica's part of the requests that the mesh can draw at once. */
  readonly slotCount: () => number;
  readonly shares: Shares;
}

interface Waiter extends Waiting, Passer {
  readonly key: string;
  /** By the router, in a row, for reasons of this job alone. */
  refusals: number;
  /** Not handed over before then, wall clock. */
  notBeforeMs: number;
}

/** Enough for a router to have the next one at hand whenever a slot frees. */
const LEAST_AHEAD = 4;
const AHEAD_RATIO = 0.25;
/** Pictures that are drawn and not recorded yet: with a store that stands still no more are drawn. */
const KEEPING_ROOM = 16;
const ASSUMED_COST_MS = 1000;
const COST_WEIGHT = 0.1;
const TAKE_BACK_RETRY_MS = 1000;

export class Runner implements ShareListener {
  readonly #options: RunnerOptions;
  readonly #queue: WaitQueue<Waiter>;
  readonly #waiters = new Map<string, Waiter>();
  readonly #attempts = new Map<string, Attempt>();
  readonly #takingBack = new Set<string>();
  readonly #gates: Gates;
  /** Jobs that wait for their time. */
  readonly #later: Agenda;
  #arrivals = 0;
  #meanCostMs = ASSUMED_COST_MS;
  #draining = false;
  #cancelWake = () => {};
  #onIdle = () => {};

  constructor(options: RunnerOptions) {
    this.#options = options;
    const { clock, random, shares, wallNow } = options;
    this.#queue = new WaitQueue<Waiter>({
      shares,
      promoteAfterMs: Number.POSITIVE_INFINITY,
      patienceFactor: 0, // within a tenant the oldest first
      kindOf: ({ model }) => model,
    });
    this.#gates = new Gates(random);
    this.#later = new Agenda({ clock, wallNow, onDue: (key) => this.#look(key) });
  }

  /** Of this replica's, those that could run now if there were a slot. */
  get waitingCount(): number {
    return this.#queue.size;
  }

  /** By what they do: handed to a router, drawing, keeping what was drawn. */
  attemptCounts(): Record<Attempt['phase'], number> {
    const counts = { handed: 0, drawing: 0, keeping: 0 };
    for (const { phase } of this.#attempts.values()) counts[phase]++;
    return counts;
  }

  job(entry: JobEntry, mine: boolean): void {
    const { key, kind, worker } = entry;
    const attempt = this.#attempts.get(key);
    if (attempt) {
      if (this.#isOver(attempt, entry, mine)) attempt.stop();
      return;
    }
    if (mine && kind === 'queued' && !this.#options.index.isHeld(entry)) this.#wait(entry);
    else this.#forget(key);
    if (kind === 'running' && (mine || worker === this.#options.worker)) this.#takeBack(entry);
  }

  removed(key: string): void {
    this.#attempts.get(key)?.stop();
    this.#forget(key);
  }

  /** NATS is back, or the mesh has slots that it had not. */
  wake(): void {
    this.#gates.open();
    this.#pump();
  }

  /** Starts nothing more, lets go of what no node has begun; resolves when all that runs has ended. */
  async drain(): Promise<void> {
    this.#draining = true;
    for (const attempt of this.#attempts.values()) if (attempt.phase === 'handed') attempt.stop();
    if (this.#attempts.size > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
  }

  /** Whatever is left is set back, for others. */
  async close(): Promise<void> {
    this.#draining = true;
    this.#cancelWake();
    this.#later.close();
    await Promise.all([...this.#attempts.values()].map((attempt) => attempt.leave()));
  }

  /** What its record says, or whose job it is, makes going on pointless. */
  #isOver(attempt: Attempt, { kind, worker }: JobEntry, mine: boolean): boolean {
    if (kind === 'queued') return attempt.begun || (!mine && attempt.phase === 'handed');
    return kind !== 'running' || worker !== this.#options.worker;
  }

  #wait({ key, model, notBeforeMs, priority, submittedAtMs, tenant }: JobEntry): void {
    const known = this.#waiters.get(key);
    const waiter: Waiter = known ?? {
      key,
      model,
      tenant,
      priority,
      arrival: ++this.#arrivals,
      arrivedAt: submittedAtMs,
      costMs: this.#meanCostMs,
      deadlineAt: Number.POSITIVE_INFINITY,
      refusals: 0,
      notBeforeMs: 0,
    };
    this.#waiters.set(key, waiter);
    const dueAtMs = Math.max(notBeforeMs, waiter.notBeforeMs);
    this.#queue.remove(waiter);
    if (dueAtMs > this.#options.wallNow()) return this.#later.set(key, dueAtMs);
    this.#later.set(key, undefined);
    this.#queue.add(waiter);
    this.#pump();
  }

  #forget(key: string): void {
    const waiter = this.#waiters.get(key);
    if (!waiter) return;
    this.#waiters.delete(key);
    this.#queue.remove(waiter);
    this.#later.set(key, undefined);
  }

  /** Looks at a job anew: its time has come, or its attempt has ended. */
  #look(key: string): void {
    const entry = this.#options.index.get(key);
    if (entry) this.job(entry, this.#options.isMine(key));
    else this.#forget(key);
  }

  #pump(): void {
    const { clock, mayStart } = this.#options;
    while (!this.#draining && this.#queue.size > 0 && mayStart() && this.#hasRoom()) {
      const now = clock.now();
      const next = this.#queue.first((waiter) => this.#gates.isOpen(waiter, now));
      if (!next) return this.#wakeAt(this.#gates.nextOpensAt(now));
      this.#start(next);
    }
  }

  #hasRoom(): boolean {
    const slotCount = this.#options.slotCount();
    const window = Math.max(1, slotCount) + Math.max(LEAST_AHEAD, Math.ceil(AHEAD_RATIO * slotCount));
    const { handed, drawing, keeping } = this.attemptCounts();
    return handed + drawing < window && keeping < window + KEEPING_ROOM;
  }

  #wakeAt(at: number | undefined): void {
    this.#cancelWake();
    if (at === undefined) return;
    const { clock } = this.#options;
    this.#cancelWake = clock.schedule(at - clock.now(), () => this.#pump());
  }

  #start(waiter: Waiter): void {
    const entry = this.#options.index.get(waiter.key);
    const service = this.#queue.take(waiter);
    if (!entry || !service) return this.#forget(waiter.key);
    this.#gates.pass(waiter);
    const onQueued = () => {
      this.#gates.queued(waiter);
      this.#pump();
    };
    const onPhase = () => {
      this.#gates.begun(waiter);
      waiter.refusals = 0;
      this.#pump();
    };
    const attempt = this.#options.attempt(entry, { onQueued, onPhase });
    this.#attempts.set(waiter.key, attempt);
    void attempt.ended.then((end) => this.#ended(waiter, service, end));
  }

  #ended(waiter: Waiter, service: Service, end: AttemptEnd): void {
    this.#attempts.delete(waiter.key);
    this.#gates.ended(waiter);
    if (end.kind === 'turnedAway') {
      this.#queue.correct({ ...service, costMs: -service.costMs });
      this.#turnedAway(waiter, end);
    } else {
      if (end.executingMs > 0) this.#meanCostMs += COST_WEIGHT * (end.executingMs - this.#meanCostMs);
      this.#queue.correct({ ...service, costMs: end.executingMs - service.costMs });
    }
    this.#look(waiter.key);
    this.#pump();
    if (this.#attempts.size === 0) this.#onIdle();
  }

  /** Others are told why it waits, once for all that it holds for. */
  #turnedAway(waiter: Waiter, { failure, leastMs, scope }: Extract<AttemptEnd, { kind: 'turnedAway' }>): void {
    const { clock, emit, index, random, wallNow } = this.#options;
    let waitMs: number | undefined;
    if (scope === 'job') {
      waitMs = Math.max(leastMs ?? 0, pauseMs(++waiter.refusals, random));
      waiter.notBeforeMs = wallNow() + waitMs;
    } else waitMs = this.#gates.refused(waiter, scope, { now: clock.now(), leastMs });
    const entry = index.get(waiter.key);
    if (waitMs === undefined || !entry) return;
    const { jobId, tenant } = entry;
    emit({ type: 'jobTurnedAway', tenant, jobId, scope, failure, nextAttemptAtMs: Math.round(wallNow() + waitMs) });
  }

  /** Its worker is gone, or is ourselves, who know nothing of it. */
  #takeBack({ jobId, key, tenant, worker }: JobEntry): void {
    const { emit, isAlive, records, wallNow } = this.#options;
    if (this.#draining || this.#takingBack.has(key)) return;
    if (worker !== this.#options.worker && isAlive(worker)) return;
    this.#takingBack.add(key);
    const setBack = records.changeJob(tenant, jobId, ({ state }) => {
      const isLeft = state.kind === 'running' && state.worker === worker && !this.#attempts.has(key);
      return isLeft ? { kind: 'setBack', counted: false, notBeforeMs: 0 } : undefined;
    });
    const done = setBack.then(
      ({ kind }) => {
        if (kind === 'changed') emit({ type: 'jobTakenBack', tenant, jobId, worker });
      },
      () => this.#later.set(key, wallNow() + TAKE_BACK_RETRY_MS), // NATS is away or slow
    );
    void done.finally(() => this.#takingBack.delete(key));
  }
}
