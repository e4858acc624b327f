/**
 * Is this node fit for users' requests? One breaker for each node.
 *
 *   closed ──rule──► open ──time out──► halfOpen ──probe good──► closed, with a ramp
 *                     ▲                    │
 *                     └────probe bad───────┘   (the time out doubles, to a limit)
 *
 * closed: requests are admitted, outcomes counted. open: nothing is admitted. halfOpen: still nothing
 * but one probe, a small canary generation that the breaker starts itself, never a user's request.
 * A result of a call that began before the last change of state counts for nothing: a success that
 * was under way when the node failed proves nothing about it now. That a line is lost
 * is for the router to see; a call lost with it counts like any failure.
 */
import { type Clock, Code, type Emit, type Random, Reason, StatusError } from '#core';
import { type BreakerState, Gate } from './gate.js';
import { outcomeOf, type Settlement } from './outcome.js';
import { type BreakerSettings, DEFAULT_SETTINGS } from './settings.js';
import { type TripCause, TripRule } from './trip-rule.js';

/** Why it is not closed: by its rule, or because it is much slower than it should be. */
export type EjectionCause = TripCause | 'tooSlow';
export type OpenCause = EjectionCause | 'probeFailed';

export type BreakerEvent =
  /** No request goes to the node for `openMs`; `repeatCount` openings came before, healthy times taken off. */
  | { type: 'breakerOpened'; node: string; cause: OpenCause; detail: string; openMs: number; repeatCount: number }
  /** A probe is under way. */
  | { type: 'breakerHalfOpened'; node: string }
  /** The node was busy, draining or loading when probed: no verdict, another probe follows. */
  | { type: 'breakerProbePostponed'; node: string; detail: string; retryMs: number }
  | { type: 'breakerClosed'; node: string; cause: 'probe' | 'reset' }
  /** It should have opened, but too few nodes would be left. Once until it succeeds again. */
  | { type: 'breakerTripRefused'; node: string; cause: TripCause }
  /** The node is gone; so is its breaker. */
  | { type: 'breakerForgotten'; node: string };

/** One call's right to run; settled exactly once, further settlements do nothing. */
export interface Permit {
  settle(outcome: Settlement): void;
}

export interface BreakerOptions {
  /** The node's id. */
  readonly name: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly emit: Emit<BreakerEvent>;
  /** The canary. Resolves when the node is good. `signal` aborts when the answer is no longer wanted. */
  readonly probe: (signal: AbortSignal) => Promise<void>;
  /** Asked before the rule opens it. Default: always. */
  readonly mayOpen?: () => boolean;
  readonly settings?: Partial<BreakerSettings>;
}

/** What the next opening will be for. */
interface Opening {
  readonly cause: OpenCause | 'postponed';
  readonly detail: string;
}

export class Breaker {
  readonly #options: BreakerOptions;
  readonly #settings: BreakerSettings;
  readonly #rule: TripRule;
  readonly #gate: Gate;
  /** Grows with every change of state; what began under an older one is not counted. */
  #generation = 0;
  #opening: Opening = { cause: 'probeFailed', detail: '' };
  #cause: EjectionCause | undefined;
  #openMs = 0;
  #closing: 'probe' | 'reset' = 'probe';
  #repeatCount = 0;
  #closedAt: number;
  /** Successes since the last return; undefined when the ramp is over. */
  #rampSuccesses: number | undefined;
  #refusalTold = false;
  #probing: AbortController | undefined;

  constructor(options: BreakerOptions) {
    this.#options = options;
    this.#settings = { ...DEFAULT_SETTINGS, ...options.settings };
    this.#rule = new TripRule(this.#settings);
    this.#closedAt = options.clock.now();
    this.#gate = new Gate({ name: options.name, openMs: () => this.#nextOpenMs(), onState: (state) => this.#entered(state) });
  }

  get name(): string {
    return this.#options.name;
  }

  get state(): BreakerState {
    return this.#gate.state;
  }

  /** What it left the closed state for; undefined while closed. */
  get cause(): EjectionCause | undefined {
    return this.#cause;
  }

  /** How much of its share the node should get: 0 unless closed, less than 1 while it comes back. */
  get weight(): number {
    if (this.state !== 'closed') return 0;
    if (this.#rampSuccesses === undefined) return 1;
    const { rampMs, rampStartRatio, rampSuccessCount } = this.#settings;
    const closedMs = this.#options.clock.now() - this.#closedAt;
    const progress = Math.min(1, Math.max(this.#rampSuccesses / rampSuccessCount, closedMs / rampMs));
    return rampStartRatio + (1 - rampStartRatio) * progress;
  }

  /** A permit when closed; undefined otherwise. */
  admit(): Permit | undefined {
    if (this.state !== 'closed') return undefined;
    const generation = this.#generation;
    let settled = false;
    return {
      settle: (outcome) => {
        if (settled) return;
        settled = true;
        if (generation === this.#generation) this.#count(outcome);
      },
    };
  }

  /** Opens it for a reason that is not in its outcomes. False when it is open already, or too few nodes would be left. */
  eject(cause: 'tooSlow', detail: string): boolean {
    if (this.state !== 'closed' || !(this.#options.mayOpen?.() ?? true)) return false;
    this.#open(cause, detail);
    return true;
  }

  /** The node seems to be back (its connection is): probe now instead of when the time is over. */
  recheck(): void {
    this.#gate.recheck();
  }

  /** A new incarnation: closed, with nothing counted. How often it opened lately is kept, against crash loops. */
  reset(): void {
    this.#forgetOutcomes();
    this.#rampSuccesses = undefined;
    this.#closing = 'reset';
    this.#gate.close();
    this.#closing = 'probe';
  }

  /** Clears every timer and ends a probe under way; nothing happens after it. */
  close(): void {
    this.#generation++;
    this.#endProbe();
    this.#gate.dispose();
  }

  #count(outcome: Settlement): void {
    switch (outcome) {
      case 'neutral':
        return;
      case 'success':
        this.#rule.success();
        this.#refusalTold = false;
        if (this.#rampSuccesses !== undefined && ++this.#rampSuccesses >= this.#settings.rampSuccessCount) this.#rampSuccesses = undefined;
        return;
      case 'failure': {
        const cause = this.#rule.failure();
        if (cause === undefined) return;
        if (this.#options.mayOpen?.() ?? true) this.#open(cause);
        else this.#refuse(cause);
        return;
      }
      default:
        outcome satisfies never;
    }
  }

  #refuse(cause: TripCause): void {
    if (this.#refusalTold) return;
    this.#refusalTold = true;
    this.#options.emit({ type: 'breakerTripRefused', node: this.name, cause });
  }

  #open(cause: EjectionCause, detail = ''): void {
    this.#opening = { cause, detail };
    this.#cause = cause;
    this.#gate.open();
  }

  #nextOpenMs(): number {
    this.#openMs = this.#timeOutMs();
    return this.#openMs;
  }

  #timeOutMs(): number {
    const { openMs, maxOpenMs, jitterRatio, decayMs, probeRetryMs } = this.#settings;
    const jitter = 1 + jitterRatio * (2 * this.#options.random() - 1);
    if (this.#opening.cause === 'postponed') return probeRetryMs * jitter;
    if (this.state === 'closed') {
      const healthySpans = Math.floor((this.#options.clock.now() - this.#closedAt) / decayMs);
      this.#repeatCount = Math.max(0, this.#repeatCount - healthySpans);
    }
    return Math.min(openMs * 2 ** this.#repeatCount, maxOpenMs) * jitter;
  }

  #entered(state: BreakerState): void {
    this.#forgetOutcomes();
    const node = this.name;
    const { emit } = this.#options;
    switch (state) {
      case 'open': {
        const { cause, detail } = this.#opening;
        if (cause === 'postponed') {
          emit({ type: 'breakerProbePostponed', node, detail, retryMs: this.#openMs });
        } else {
          emit({ type: 'breakerOpened', node, cause, detail, openMs: this.#openMs, repeatCount: this.#repeatCount });
          this.#repeatCount++;
        }
        return;
      }
      case 'halfOpen':
        emit({ type: 'breakerHalfOpened', node });
        void this.#probe();
        return;
      case 'closed':
        this.#cause = undefined;
        this.#closedAt = this.#options.clock.now();
        this.#rampSuccesses = this.#closing === 'probe' ? 0 : undefined;
        emit({ type: 'breakerClosed', node, cause: this.#closing });
        return;
      default:
        state satisfies never;
    }
  }

  async #probe(): Promise<void> {
    const controller = new AbortController();
    this.#probing = controller;
    const generation = this.#generation;
    const { probeTimeoutMs } = this.#settings;
    const cancelTimeout = this.#options.clock.schedule(probeTimeoutMs, () => controller.abort(probeTimedOut(probeTimeoutMs)));
    controller.signal.addEventListener('abort', cancelTimeout, { once: true });
    await this.#gate.probe(async () => {
      try {
        // Settles as soon as the signal aborts, so that no late answer meets a later half-open state.
        await untilAborted(this.#options.probe(controller.signal), controller.signal);
      } catch (thrown) {
        if (generation === this.#generation) this.#opening = openingAfterProbe(StatusError.from(thrown));
        throw thrown;
      }
    });
    cancelTimeout();
  }

  #forgetOutcomes(): void {
    this.#generation++;
    this.#rule.clear();
    this.#refusalTold = false;
    this.#endProbe();
  }

  #endProbe(): void {
    this.#probing?.abort(new StatusError({ code: Code.CANCELLED, reason: Reason.CANCELLED, message: 'this probe is no longer wanted' }));
    this.#probing = undefined;
  }
}

/** Only "not begun" is no verdict; a canary that is refused as wrong has failed like one that crashed. */
function openingAfterProbe(error: StatusError): Opening {
  return { cause: outcomeOf(error).retry === 'free' ? 'postponed' : 'probeFailed', detail: `${error.reason}: ${error.message}` };
}

function probeTimedOut(probeTimeoutMs: number): StatusError {
  const message = `expected the probe to end within ${probeTimeoutMs} ms, it did not`;
  return new StatusError({ code: Code.DEADLINE_EXCEEDED, reason: Reason.EXECUTION_TIMEOUT, message });
}

/** `promise`, or the signal's reason if that comes first. */
function untilAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    promise.then(resolve, reject);
  });
}
