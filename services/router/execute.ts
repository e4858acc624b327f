/**
 * One request from admission to answer: wait for a slot, call the node, and when that fails decide by
 * one table (libs/breaker/outcome.ts) whether another node is asked. Retries happen here and nowhere
 * else; the seed is fixed, so any node of the same kind draws the same picture.
 */
import { outcomeOf } from '#breaker';
import { type Clock, Code, type Emit, Reason, StatusError } from '#core';
import { allowedExecutionMs, type CostModel, type ExecutionLimits, type RetryBudget, type Service, type Work } from '#scheduling';
import type { Dispatcher, Slot } from './dispatch/dispatcher.js';
import type { Fleet } from './dispatch/fleet.js';
import type { FleetNode } from './dispatch/fleet-node.js';
import type { Ticket } from './dispatch/ticket.js';
import type { RouterEvent } from './events.js';
import { type HedgeSettings, Race, type Racer, soleVoice, type Voice, watchSilence } from './hedge.js';

export interface ExecuteOptions {
  readonly clock: Clock;
  readonly emit: Emit<RouterEvent>;
  readonly fleet: Fleet;
  readonly dispatcher: Dispatcher;
  readonly cost: CostModel;
  readonly budget: RetryBudget;
  /** What a request took on a node, or has taken at least. */
  readonly learn: (node: FleetNode, work: Work, tookMs: number) => void;
  /** `loadTimeoutMs`: on top where the node may have to load the model first. */
  readonly limits: ExecutionLimits & { readonly loadTimeoutMs: number };
  readonly routerId: string;
  /** What a service cost beyond what it was counted as. */
  readonly correct: (service: Service) => void;
  /** Nodes a request is tried on at most. */
  readonly maxNodes: number;
  readonly hedge: HedgeSettings;
}

/** One try on one node. */
export interface Attempt {
  readonly slot: Slot;
  /** Goes to the node with the request. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly deadlineAt: number;
  readonly voice: Voice;
  /** The caller is told that the node has begun: from here on it counts as an attempt, whatever the node says later. */
  readonly begun: () => void;
}

/** What a node's answer tells about itself. */
export interface Outcome<Result> {
  readonly result: Result;
  /** Engine time, milliseconds; undefined when the node did not say. */
  readonly executingMs: number | undefined;
}

export type Run<Result> = (attempt: Attempt) => Promise<Outcome<Result>>;

type Ended<Result> = { readonly result: Result } | { readonly error: StatusError };

/** A node's refusal for its own reasons may be asked again this often before it counts as an attempt. */
const FREE_RETRIES = 100;
/** Time a node has to report its own timeout before the router gives up on it. */
const TIMEOUT_SLACK_MS = 2000;
/** Two nodes broken by one request: it is the request. */
const POISON_NODE_COUNT = 2;

export class Executor {
  #liveCount = 0;

  constructor(private readonly options: ExecuteOptions) {}

  /** Requests between admission and answer. */
  get liveCount(): number {
    return this.#liveCount;
  }

  /** Resolves with what `run` made of the first attempt that ended well. */
  async execute<Result>(ticket: Ticket, signal: AbortSignal, trace: Record<string, string>, run: Run<Result>): Promise<Result> {
    let giveBack: (() => void) | undefined;
    this.#liveCount++;
    try {
      for (let free = 0; ; ) {
        const slot = await this.options.dispatcher.acquire(ticket, signal);
        const ended = await this.#attempts(ticket, slot, signal, (taken, voice) => this.#attempt(ticket, taken, voice, trace, run));
        if ('result' in ended) return ended.result;
        const { error } = ended;
        const { retry } = outcomeOf(error);
        giveBack?.();
        giveBack = undefined;
        if (retry === 'never') throw error;
        if (retry === 'free') {
          if (++free < FREE_RETRIES) continue;
          ticket.attempts++;
          ticket.tried.add(slot.node.life);
        }
        giveBack = this.#mayRetry(ticket, error);
      }
    } finally {
      giveBack?.();
      this.#liveCount--;
    }
  }

  /** An attempt, and for an urgent request a second one on an idle node while the first is silent. The first good answer counts. */
  async #attempts<Result>(
    ticket: Ticket,
    slot: Slot,
    signal: AbortSignal,
    attempt: (slot: Slot, voice: Voice) => Promise<Ended<Result>>,
  ): Promise<Ended<Result>> {
    const { clock, cost, emit, hedge } = this.options;
    if (ticket.priority !== hedge.who || !cost.knows(ticket.work.model)) return attempt(slot, soleVoice(signal));
    const race = new Race(clock, signal);
    const first = race.enter();
    let second: Promise<Ended<Result>> | undefined;
    const stopWatching = watchSilence(race, {
      clock,
      settings: hedge,
      expected: { loadMs: slot.loadMs, runMs: slot.predictedMs, stepCount: ticket.work.steps * ticket.work.imageCount },
      onSilent: () => {
        if (second) return;
        const begun = this.#hedge(ticket, slot);
        if (!begun) return;
        const { requestId } = ticket;
        const { nodeId } = begun.slot.node;
        emit({ type: 'hedgeStarted', requestId, nodeId, silentNodeId: slot.node.nodeId, silentMs: race.silentMs });
        const racer = race.enter();
        second = attempt(begun.slot, racer).finally(begun.giveBack);
        void second.then((ended) => {
          emit({ type: 'hedgeEnded', requestId, nodeId, result: 'result' in ended ? 'won' : racer.lost ? 'lost' : 'failed' });
          // It never ran: another may.
          if ('error' in ended && !racer.lost && outcomeOf(ended.error).retry === 'free') second = undefined;
        });
      },
    });
    const one = await attempt(slot, first).finally(stopWatching);
    if ('result' in one || !second) return one;
    if (!first.lost && outcomeOf(one.error).retry === 'never') race.end(); // the other would say the same, or nobody waits
    const two = await second;
    return 'result' in two || first.lost ? two : one;
  }

  /** An idle node's slot for a request that runs already, and its place in the retry budget. */
  #hedge(ticket: Ticket, { node, service }: Slot): { slot: Slot; giveBack: () => void } | undefined {
    const { budget, dispatcher, maxNodes } = this.options;
    if (ticket.attempts >= maxNodes) return undefined;
    const giveBack = budget.withdraw(this.#liveCount);
    if (!giveBack) return undefined;
    const slot = dispatcher.takeIdle(ticket, { besides: node, service });
    if (slot) return { slot, giveBack };
    giveBack();
    return undefined;
  }

  async #attempt<Result>(
    ticket: Ticket,
    slot: Slot,
    voice: Voice | Racer,
    trace: Record<string, string>,
    run: Run<Result>,
  ): Promise<Ended<Result>> {
    const { clock, dispatcher, emit, learn, limits } = this.options;
    const { node, permit, predictedMs, service } = slot;
    const allowedMs = allowedExecutionMs(predictedMs, ticket.sizeRatio, limits);
    const loadMs = slot.loadMs > 0 || node.swapsModels ? limits.loadTimeoutMs : 0;
    // The node counts no time for which it has paused the request: this is for a node that lost count.
    const attemptDeadlineAt = clock.now() + loadMs + allowedMs + node.link.maxPauseMs + TIMEOUT_SLACK_MS;
    ticket.attempts++;
    let hasBegun = false;
    const begun = () => {
      hasBegun = true;
    };
    const metadata: Record<string, string> = {
      ...trace,
      'x-request-id': ticket.requestId,
      'x-mesh-attempt': String(ticket.attempts),
      'x-mesh-router': this.options.routerId,
      'x-mesh-tenant': service.tenant,
      'x-mesh-priority': service.priority,
      'x-mesh-cost-ms': String(service.costMs),
      ...(ticket.actedFor ? { 'x-mesh-acted-for': '1' } : {}),
      // A node may hold several revisions of one model.
      ...(ticket.revision === '' ? {} : { 'x-mesh-revision': ticket.revision }),
      ...(slot.grantId === undefined ? {} : { 'x-mesh-lease': String(slot.grantId) }),
    };
    try {
      const outcome = await run({ slot, metadata, deadlineAt: Math.min(ticket.deadlineAt, attemptDeadlineAt), voice, begun });
      permit.settle('success');
      ticket.servedBy = node.nodeId;
      if (outcome.executingMs !== undefined) {
        learn(node, ticket.work, outcome.executingMs);
        this.options.correct({ ...service, costMs: outcome.executingMs - service.costMs });
        emit({ type: 'executed', requestId: ticket.requestId, nodeId: node.nodeId, predictedMs, actualMs: outcome.executingMs });
      }
      return { result: outcome.result };
    } catch (thrown) {
      if ('lost' in voice && voice.lost) {
        permit.settle('neutral');
        // The silent one would have taken at least as long.
        if (!voice.joined && slot.loadMs === 0) learn(node, ticket.work, clock.now() - slot.lease.startedAt);
        return { error: StatusError.from(thrown) };
      }
      const error = this.#classify(StatusError.from(thrown), ticket, attemptDeadlineAt, { predictedMs, allowedMs });
      const outcome = outcomeOf(error);
      permit.settle(outcome.breaker === 'failure' ? 'failure' : 'neutral');
      if (error.reason === Reason.NODE_BUSY) node.link.noteBusy();
      else if (outcome.retry === 'free') node.link.noteNotAccepting();
      if (outcome.retry === 'free') {
        if (!hasBegun) ticket.attempts--; // it never ran
        this.options.correct({ ...service, costMs: -service.costMs });
      } else ticket.tried.add(node.life);
      if (outcome.retry === 'poison') ticket.poisonCount++;
      ticket.lastError = error;
      emit({
        type: 'attemptFailed',
        requestId: ticket.requestId,
        nodeId: node.nodeId,
        attempt: ticket.attempts,
        error,
        again: outcome.retry !== 'never',
      });
      return { error };
    } finally {
      dispatcher.release(slot);
    }
  }

  /** A deadline that was ours, not the caller's, is an execution timeout of the node. */
  #classify(error: StatusError, ticket: Ticket, attemptDeadlineAt: number, times: { predictedMs: number; allowedMs: number }): StatusError {
    const ours = error.code === Code.DEADLINE_EXCEEDED && error.reason === Reason.DEADLINE && attemptDeadlineAt < ticket.deadlineAt;
    if (!ours) return error;
    return new StatusError({
      code: Code.DEADLINE_EXCEEDED,
      reason: Reason.EXECUTION_TIMEOUT,
      message: `expected the picture within ${Math.round(times.allowedMs)} ms, the node sent none`,
      metadata: { predicted_ms: String(Math.round(times.predictedMs)), allowed_ms: String(Math.round(times.allowedMs)) },
      cause: error,
    });
  }

  /** Returns what gives the retry's place back, or throws why there is no retry. */
  #mayRetry(ticket: Ticket, error: StatusError): () => void {
    const { budget, clock, fleet, maxNodes } = this.options;
    if (ticket.poisonCount >= POISON_NODE_COUNT) throw poison(ticket, error);
    const hopeless = ticket.attempts >= maxNodes || clock.now() >= ticket.deadlineAt || !fleet.couldServe(ticket);
    const place = hopeless ? undefined : budget.withdraw(this.#liveCount);
    if (!place) throw error;
    return place;
  }
}

function poison(ticket: Ticket, error: StatusError): StatusError {
  const nodes = [...ticket.tried].map((life) => life.split('/')[0]).join(', ');
  return new StatusError({
    code: Code.ABORTED,
    reason: Reason.POISON,
    message: `this request broke every node it was given to (${nodes}); last: ${error.message}`,
    metadata: { nodes, last_reason: error.reason },
    cause: error,
  });
}
