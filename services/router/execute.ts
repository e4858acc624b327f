/**
 * One request from admission to answer: wait for a slot, call the node, and when that fails decide by
 * one table (libs/breaker/outcome.ts) whether another node is asked. Retries happen here and nowhere
 * else; the seed is fixed, so any node of the same kind draws the same picture.
 */
import { outcomeOf } from '#breaker';
import { type Clock, Code, type Emit, Reason, StatusError } from '#core';
import type { CostModel, RetryBudget, Service } from '#scheduling';
import type { Dispatcher, Slot } from './dispatch/dispatcher.js';
import type { Fleet } from './dispatch/fleet.js';
import type { Ticket } from './dispatch/ticket.js';
import type { RouterEvent } from './events.js';

export interface ExecutionLimits {
  /** An attempt may take this many times its prediction, within floor and cap. */
  readonly factor: number;
  readonly floorMs: number;
  readonly capMs: number;
}

export interface ExecuteOptions {
  readonly clock: Clock;
  readonly emit: Emit<RouterEvent>;
  readonly fleet: Fleet;
  readonly dispatcher: Dispatcher;
  readonly cost: CostModel;
  readonly budget: RetryBudget;
  readonly limits: ExecutionLimits;
  readonly routerId: string;
  /** What a service cost beyond what it was counted as. */
  readonly correct: (service: Service) => void;
  /** Nodes a request is tried on at most. */
  readonly maxNodes: number;
}

/** One try on one node. */
export interface Attempt {
  readonly slot: Slot;
  /** Goes to the node with the request. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly deadlineAt: number;
  readonly signal: AbortSignal;
}

/** What a node's answer tells about itself. */
export interface Outcome<Result> {
  readonly result: Result;
  /** Engine time, milliseconds; undefined when the node did not say. */
  readonly executingMs: number | undefined;
}

export type Run<Result> = (attempt: Attempt) => Promise<Outcome<Result>>;

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
        const failure = await this.#attempt(ticket, slot, signal, trace, run);
        if ('result' in failure) return failure.result;
        const { error } = failure;
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

  async #attempt<Result>(
    ticket: Ticket,
    slot: Slot,
    signal: AbortSignal,
    trace: Record<string, string>,
    run: Run<Result>,
  ): Promise<{ result: Result } | { error: StatusError }> {
    const { clock, cost, dispatcher, emit, limits } = this.options;
    const { node, permit, predictedMs, service } = slot;
    const allowedMs = Math.min(Math.max(limits.factor * predictedMs, limits.floorMs), limits.capMs);
    // The node counts no time for which it has paused the request: this is for a node that lost count.
    const attemptDeadlineAt = clock.now() + allowedMs + node.link.maxPauseMs + TIMEOUT_SLACK_MS;
    ticket.attempts++;
    const metadata: Record<string, string> = {
      ...trace,
      'x-request-id': ticket.requestId,
      'x-mesh-attempt': String(ticket.attempts),
      'x-mesh-router': this.options.routerId,
      'x-mesh-tenant': service.tenant,
      'x-mesh-priority': service.priority,
      'x-mesh-cost-ms': String(service.costMs),
      ...(slot.grantId === undefined ? {} : { 'x-mesh-lease': String(slot.grantId) }),
    };
    try {
      const outcome = await run({ slot, metadata, deadlineAt: Math.min(ticket.deadlineAt, attemptDeadlineAt), signal });
      permit.settle('success');
      ticket.servedBy = node.nodeId;
      if (outcome.executingMs !== undefined) {
        cost.observe(node.nodeId, ticket.work, outcome.executingMs);
        this.options.correct({ ...service, costMs: outcome.executingMs - service.costMs });
        emit({ type: 'executed', requestId: ticket.requestId, nodeId: node.nodeId, predictedMs, actualMs: outcome.executingMs });
      }
      return { result: outcome.result };
    } catch (thrown) {
      const error = this.#classify(StatusError.from(thrown), ticket, attemptDeadlineAt, { predictedMs, allowedMs });
      const outcome = outcomeOf(error);
      permit.settle(outcome.breaker === 'failure' ? 'failure' : 'neutral');
      if (error.reason === Reason.NODE_BUSY) node.link.noteBusy();
      else if (outcome.retry === 'free') node.link.noteNotAccepting();
      if (outcome.retry === 'free') {
        ticket.attempts--; // it never ran
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
