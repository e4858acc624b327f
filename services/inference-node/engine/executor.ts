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
 *     … before it was handed over, or   UNAVAILABLE/ENGINE_NOT_READY
 *     while it was paused, up to the
 *     engine's word that it goes on
 *   engine's own fault (memory, NaN, …) the engine's status               a canary first
 *   the request's fault                 the engine's status               free at once
 *
 * The slot may pause it for another request meanwhile; no limit and no measurement counts that time.
 */
import type { engine } from '#contracts';
import { type Clock, Code, codeName, type Emit, Reason, StatusError } from '#core';
import { allowedExecutionMs, type ExecutionLimits, type Priority } from '#scheduling';
import type { CostEstimate } from '../domain/cost-estimate.js';
import type { Lease, PauseControl } from '../domain/slot.js';
import type { NodeEvent } from '../events.js';
import { collect, type Rgb } from './collect.js';
import { engineFailure, lostWhilePaused } from './connection.js';
import type { Drawable } from './engine-request.js';
import { Meter } from './meter.js';
import type { LiveEngine, Supervisor } from './supervisor.js';
import { Watchdog } from './watchdog.js';
import { WorkClock } from './work-clock.js';

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
  /** When the caller stops waiting, clock milliseconds. */
  readonly deadlineAt: number;
  readonly priority: Priority;
  readonly onStep: (step: engine.EngineStep) => void;
  readonly onImage: (rgb: Rgb, imageIndex: number) => void;
}

export interface Drawn {
  /** Without pauses. */
  readonly executingMs: number;
}

export interface Progress {
  readonly requestId: string;
  readonly step: number;
  readonly total: number;
  /** Predicted time to its end, pauses aside; milliseconds. */
  readonly remainingMs: () => number;
  readonly paused: () => boolean;
}

const USUAL_STEPS = 10;
/** The engine is as good as before: the request was at fault. */
const REQUEST_FAULTS: ReadonlySet<number> = new Set([Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.OUT_OF_RANGE]);

export class Executor {
  readonly #options: ExecutorOptions;
  /** By lease: one that runs, and one that is paused. */
  readonly #progress = new Map<bigint, Progress>();
  #completedCount = 0;
  #failedCount = 0;

  constructor(options: ExecutorOptions) {
    this.#options = options;
  }

  get progress(): Iterable<Progress> {
    return this.#progress.values();
  }

  get completedCount(): number {
    return this.#completedCount;
  }

  /** Failures of this node; a caller's cancel or a faulty request is none. */
  get failedCount(): number {
    return this.#failedCount;
  }

  /**
   * A request is here and waits for the one that runs: its text is read meanwhile, which would keep the GPU waiting
   * later on. Only saves time, so whatever becomes of it is of no interest.
   */
  prepare(drawable: Drawable, signal: AbortSignal): void {
    const { engine } = this.#options.supervisor;
    if (!engine?.canPrepare || this.#progress.size === 0) return;
    engine.connection.prepare(drawable, AbortSignal.any([signal, engine.gone])).catch(() => {});
  }

  /** Uses up the lease in every case. */
  async run({ drawable, order, sizeRatio }: Work, lease: Lease, watch: Watch): Promise<Drawn> {
    const { clock, emit, estimate, limits, supervisor } = this.#options;
    await allIsHeard();
    const engine = supervisor.engine;
    if (!engine) {
      lease.release();
      throw new StatusError({ code: Code.UNAVAILABLE, reason: Reason.ENGINE_NOT_READY, message: 'the engine of this node is not ready' });
    }
    const work = new WorkClock(clock);
    const startedAt = work.now();
    const predictedMs = estimate.predictMs(drawable);
    const { requestId } = drawable;
    const ended = (error?: StatusError) => {
      this.#progress.delete(lease.id);
      if (!error) this.#completedCount++;
      else if (!watch.signal.aborted && !REQUEST_FAULTS.has(error.code)) this.#failedCount++;
      const tookMs = work.now() - startedAt;
      emit({ type: 'drawEnded', requestId, leaseId: lease.id, predictedMs, tookMs, ...(error ? { error } : {}) });
      return tookMs;
    };
    const giveUp = new AbortController();
    const allowedMs = allowedExecutionMs(predictedMs, sizeRatio, limits);
    const cancelTimeout = work.schedule(allowedMs, () => giveUp.abort(executionTimeout(predictedMs, allowedMs)));
    const stallMs = Math.max(this.#options.stepTimeoutMs, USUAL_STEPS * (estimate.usualStepMs(drawable) ?? 0));
    const watchdog = new Watchdog(work, stallMs, () => giveUp.abort(engineStalled(stallMs)));
    const signal = AbortSignal.any([watch.signal, giveUp.signal, engine.gone]);
    const meter = new Meter(drawable, { clock: work, estimate, startedAt });
    const moved = (step: number) => {
      const expectedEndAt = meter.expectedEndAt();
      const remainingMs = () => Math.max(0, expectedEndAt - work.now());
      this.#progress.set(lease.id, { requestId, step, total: meter.total, remainingMs, paused: () => work.stopped });
      lease.expectEnd(clock.now() + expectedEndAt - work.now());
    };
    const { deadlineAt, priority } = watch;
    const pauseEnded = () => {
      if (work.stopped) emit({ type: 'pauseEnded', requestId, priority, pausedMs: work.go() });
    };
    // The engine has said that it does not draw this request: whatever kills it meanwhile, it is another one.
    let resting = false;
    const control: PauseControl = {
      priority,
      deadlineAt,
      stepMs: estimate.usualStepMs(drawable) ?? 0,
      pause: async () => {
        const paused = await engine.connection.pause(requestId, signal).catch(() => false);
        if (!paused || signal.aborted) return false;
        resting = true;
        work.stop();
        emit({ type: 'drawPaused', requestId, priority });
        return true;
      },
      resume: () => {
        if (signal.aborted) return;
        pauseEnded();
        const lost = () => giveUp.abort(notResumed());
        engine.connection.continue(requestId, signal).then(
          (goesOn) => {
            if (!goesOn) return lost();
            resting = false;
          },
          // Of an engine that died, the picture's own stream tells.
          (thrown) => isCrash(engineFailure(thrown)) || lost(),
        );
      },
    };
    try {
      moved(0);
      if (engine.canPause) lease.allowPause(control);
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
      const { stopped: paused } = work;
      const stoppedByUs = watch.signal.aborted || giveUp.signal.aborted;
      const reason = engineFailure(signal.aborted ? signal.reason : thrown);
      // The stream may break before the process is seen to be gone.
      const error = resting && !stoppedByUs && isCrash(reason) ? lostWhilePaused(reason) : reason;
      pauseEnded();
      ended(error);
      this.#cleanUp(engine, lease, { drawable, error, stoppedByUs, paused });
      throw error;
    } finally {
      cancelTimeout();
      watchdog.stop();
    }
  }

  #cleanUp(engine: LiveEngine, lease: Lease, how: { drawable: Drawable; error: StatusError; stoppedByUs: boolean; paused: boolean }): void {
    const { supervisor } = this.#options;
    const { error } = how;
    if (error.reason === Reason.ENGINE_STALLED) {
      supervisor.condemn(engine, error.message);
    } else if (how.stoppedByUs && !engine.gone.aborted) {
      void this.#releaseWhenStopped(engine, lease, how);
      return;
    } else if (!REQUEST_FAULTS.has(error.code)) {
      supervisor.suspect(engine, `${codeName(error.code)}/${error.reason}: ${error.message}`);
    }
    lease.release();
  }

  /** The call was cancelled at our side; the slot is free when the engine says that it is idle, or keeps nothing of it. */
  async #releaseWhenStopped(engine: LiveEngine, lease: Lease, how: { drawable: Drawable; paused: boolean }): Promise<void> {
    const { drawable, paused } = how;
    const { clock, emit, estimate, cancelGraceMs, supervisor } = this.#options;
    const startedAt = clock.now();
    const graceMs = Math.max(cancelGraceMs, USUAL_STEPS * (estimate.usualStepMs(drawable) ?? 0));
    lease.expectEnd(startedAt + (estimate.usualStepMs(drawable) ?? 0));
    const over = new AbortController();
    const cancelGrace = clock.schedule(graceMs, () => over.abort(new Error('the grace is over')));
    let killed = false;
    try {
      const signal = AbortSignal.any([over.signal, engine.gone]);
      await (paused ? engine.connection.untilDropped(drawable.requestId, signal) : engine.connection.untilIdle(signal));
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

/**
 * Where this process stood still, the death of its engine and the next request are there in the same turn of the event
 * loop, in any order. A request that is handed over before the death is heard of would be blamed for it, and two such
 * blames are POISON.
 */
function allIsHeard(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

function isCrash({ reason }: StatusError): boolean {
  return reason === Reason.ENGINE_CRASHED;
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

function notResumed(): StatusError {
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.ENGINE_STALLED,
    message: 'the engine did not go on with a paused picture and was restarted',
  });
}

function engineStalled(stallMs: number): StatusError {
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.ENGINE_STALLED,
    message: `the engine made no progress for ${Math.round(stallMs)} ms and was restarted`,
  });
}
