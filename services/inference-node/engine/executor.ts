/**
 * Runs one request on the engine, from lease to raw pictures, and answers for what happens when that
 * goes wrong: who is told what, when the slot frees, and whether the engine can still be trusted.
 *
 *   how it ended                        caller                            engine, then slot
 *   finished                            pictures                          free at once; encoding comes later
 *   caller gone, or execution timeout   its own status, at once           free when the engine has really stopped;
 *                                                                         killed when that takes too long
 *   no progress                         UNAVAILABLE/ENGINE_STALLED        killed
 *   process died                        UNAVAILABLE/ENGINE_CRASHED        restarted
 *   engine's own fault (memory, NaN, …) the engine's status               a canary first
 *   the request's fault                 the engine's status               free at once
 */
import type { engine } from '#contracts';
import { type Clock, Code, codeName, type Emit, Reason, StatusError } from '#core';
import { allowedExecutionMs, type ExecutionLimits } from '#scheduling';
import type { CostEstimate } from '../domain/cost-estimate.js';
import type { Lease } from '../domain/slot.js';
import type { NodeEvent } from '../events.js';
import { collect, type Rgb } from './collect.js';
import { engineFailure } from './connection.js';
import type { Drawable } from './engine-request.js';
import { Meter } from './meter.js';
import type { LiveEngine, Supervisor } from './supervisor.js';
import { Watchdog } from './watchdog.js';

export interface ExecutorOptions {
  readonly clock: Clock;
  readonly emit: Emit<NodeEvent>;
  readonly supervisor: Supervisor;
  readonly estimate: CostEstimate;
  readonly limits: ExecutionLimits;
  /** An engine that has not stopped this long after a cancel, or 10 usual steps, is killed. */
  readonly cancelGraceMs: number;
  /** An engine that makes no progress this long, or 10 usual steps, is killed. */
  readonly stepTimeoutMs: number;
}

/** What to draw: as it was asked for, and as the engine takes it. */
export interface Work {
  readonly drawable: Drawable;
  readonly order: engine.EngineGenerateRequest;
  /** Against the model's defaults; what may take longer than these. */
  readonly sizeRatio: number;
}

export interface Watch {
  /** The caller's; aborting it takes the work off the engine. */
  readonly signal: AbortSignal;
  readonly onStep: (step: engine.EngineStep) => void;
  readonly onImage: (rgb: Rgb, imageIndex: number) => void;
}

export interface Drawn {
  readonly executingMs: number;
}

export interface Progress {
  readonly requestId: string;
  readonly step: number;
  readonly total: number;
  readonly expectedEndAt: number;
}

const USUAL_STEPS = 10;
/** The engine is as good as before: the request was at fault. */
const REQUEST_FAULTS: ReadonlySet<number> = new Set([Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.OUT_OF_RANGE]);

export class Executor {
  readonly #options: ExecutorOptions;
  #progress: Progress | undefined;
  #completedCount = 0;
  #failedCount = 0;

  constructor(options: ExecutorOptions) {
    this.#options = options;
  }

  get progress(): Progress | undefined {
    return this.#progress;
  }

  get completedCount(): number {
    return this.#completedCount;
  }

  /** Failures of this node; a caller's cancel or a faulty request is none. */
  get failedCount(): number {
    return this.#failedCount;
  }

  /** Uses up the lease in every case. */
  async run({ drawable, order, sizeRatio }: Work, lease: Lease, watch: Watch): Promise<Drawn> {
    const { clock, emit, estimate, limits, supervisor } = this.#options;
    const engine = supervisor.engine;
    if (!engine) {
      lease.release();
      throw new StatusError({ code: Code.UNAVAILABLE, reason: Reason.ENGINE_NOT_READY, message: 'the engine of this node is not ready' });
    }
    const startedAt = clock.now();
    const predictedMs = estimate.predictMs(drawable);
    const ended = (error?: StatusError) => {
      this.#progress = undefined;
      if (!error) this.#completedCount++;
      else if (!watch.signal.aborted && !REQUEST_FAULTS.has(error.code)) this.#failedCount++;
      const tookMs = clock.now() - startedAt;
      emit({ type: 'drawEnded', requestId: drawable.requestId, leaseId: lease.id, predictedMs, tookMs, ...(error ? { error } : {}) });
      return tookMs;
    };
    const giveUp = new AbortController();
    const allowedMs = allowedExecutionMs(predictedMs, sizeRatio, limits);
    const cancelTimeout = clock.schedule(allowedMs, () => giveUp.abort(executionTimeout(predictedMs, allowedMs)));
    const stallMs = Math.max(this.#options.stepTimeoutMs, USUAL_STEPS * (estimate.usualStepMs(drawable) ?? 0));
    const watchdog = new Watchdog(clock, stallMs, () => giveUp.abort(engineStalled(stallMs)));
    const signal = AbortSignal.any([watch.signal, giveUp.signal, engine.gone]);
    const meter = new Meter(drawable, { clock, estimate, startedAt });
    const moved = (step: number) => {
      const expectedEndAt = meter.expectedEndAt();
      this.#progress = { requestId: drawable.requestId, step, total: meter.total, expectedEndAt };
      lease.expectEnd(expectedEndAt);
    };
    try {
      moved(0);
      await collect(engine.connection.generate(order, signal), {
        ...drawable,
        onStep: (step) => {
          watchdog.feed();
          emit({ type: 'stepDone', stepMs: meter.step() });
          moved(meter.done);
          watch.onStep(step);
        },
        onImage: (rgb, imageIndex) => {
          watchdog.feed();
          watch.onImage(rgb, imageIndex);
        },
      });
      estimate.learn(drawable, meter.sample());
      const executingMs = ended();
      lease.release();
      return { executingMs };
    } catch (thrown) {
      const error = engineFailure(signal.aborted ? signal.reason : thrown);
      ended(error);
      this.#cleanUp(engine, lease, { drawable, error, stoppedByUs: watch.signal.aborted || giveUp.signal.aborted });
      throw error;
    } finally {
      cancelTimeout();
      watchdog.stop();
    }
  }

  #cleanUp(engine: LiveEngine, lease: Lease, how: { drawable: Drawable; error: StatusError; stoppedByUs: boolean }): void {
    const { supervisor } = this.#options;
    const { error } = how;
    if (error.reason === Reason.ENGINE_STALLED) {
      supervisor.condemn(engine, error.message);
    } else if (how.stoppedByUs && !engine.gone.aborted) {
      void this.#releaseWhenStopped(engine, lease, how.drawable);
      return;
    } else if (!REQUEST_FAULTS.has(error.code)) {
      supervisor.suspect(engine, `${codeName(error.code)}/${error.reason}: ${error.message}`);
    }
    lease.release();
  }

  /** The call was cancelled at our side; the slot is free when the engine says that it is idle. */
  async #releaseWhenStopped(engine: LiveEngine, lease: Lease, drawable: Drawable): Promise<void> {
    const { clock, emit, estimate, cancelGraceMs, supervisor } = this.#options;
    const startedAt = clock.now();
    const graceMs = Math.max(cancelGraceMs, USUAL_STEPS * (estimate.usualStepMs(drawable) ?? 0));
    lease.expectEnd(startedAt + (estimate.usualStepMs(drawable) ?? 0));
    const over = new AbortController();
    const cancelGrace = clock.schedule(graceMs, () => over.abort(new Error('the grace is over')));
    let killed = false;
    try {
      await engine.connection.untilIdle(AbortSignal.any([over.signal, engine.gone]));
    } catch {
      killed = !engine.gone.aborted;
      // Deaf, or still at it: either way nothing but a new process gives the GPU back.
      supervisor.condemn(engine, `it did not stop within ${Math.round(graceMs)} ms of a cancel`);
    } finally {
      cancelGrace();
    }
    emit({ type: 'drawStopped', requestId: drawable.requestId, tookMs: clock.now() - startedAt, killed });
    lease.release();
  }
}

function executionTimeout(predictedMs: number | undefined, allowedMs: number): StatusError {
  return new StatusError({
    code: Code.DEADLINE_EXCEEDED,
    reason: Reason.EXECUTION_TIMEOUT,
    message: `the picture was allowed ${Math.round(allowedMs)} ms on this node and is not finished`,
    metadata: {
      predicted_ms: predictedMs === undefined ? 'unknown' : predictedMs.toFixed(0),
      allowed_ms: allowedMs.toFixed(0),
    },
  });
}

function engineStalled(stallMs: number): StatusError {
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.ENGINE_STALLED,
    message: `the engine made no progress for ${Math.round(stallMs)} ms and was restarted`,
  });
}
