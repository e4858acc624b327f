/**
 * EngineService: several models, one request at a time. The main thread answers at once whatever the
 * worker thread is computing.
 *
 *   idle ⇄ loading (Load, Unload), idle ⇄ busy (Generate); an idle engine without a model reports itself as empty.
 *
 * A cancelled request keeps the engine busy until the worker has noticed, at most one step later; a
 * request that comes in that moment waits for it instead of being turned away.
 *
 * Beside that, one request may be paused: its latents wait in the worker while the engine is idle or busy
 * with another. The model stays as long as it does.
 */
import { engine } from '#contracts';
import { badRequest, type Clock, Code, type Emit, Reason, StatusError } from '#core';
import type { Call, HandlersOf, Writer } from '#grpc';
import { fullName, modelMessage } from '#model-package';
import type { EngineEvent } from './events.js';
import { orderOf, unknownModel } from './order.js';
import { ENGINE_VERSION } from './version.js';
import type { Loaded } from './worker/messages.js';
import type { ComputeWorker, DrawJob } from './worker/worker.js';

export interface EngineServiceOptions {
  readonly worker: ComputeWorker;
  readonly clock: Clock;
  readonly emit: Emit<EngineEvent>;
  readonly memory: () => { readonly usedBytes: number; readonly totalBytes: number };
}

interface Running {
  readonly requestId: string;
  readonly job: DrawJob;
  step: number;
  total: number;
  progressAt: number;
  cancelled: boolean;
  /** Resolves when the worker is rid of it; never rejects. */
  ended: Promise<void>;
}

type State = { readonly kind: 'idle' } | { readonly kind: 'loading' } | { readonly kind: 'busy'; readonly running: Running };

type GenerateCall = Call<engine.EngineGenerateRequest>;
type GenerateWriter = Writer<engine.EngineGenerateEvent>;

export class EngineService {
  readonly #options: EngineServiceOptions;
  /** By full name, in the order of loading. */
  readonly #loaded = new Map<string, Loaded>();
  #state: State = { kind: 'idle' };
  #paused: Running | undefined;
  #completedCount = 0n;
  #lastRequestId = '';
  #stopping = false;

  constructor(options: EngineServiceOptions) {
    this.#options = options;
  }

  readonly handlers: HandlersOf<typeof engine.EngineServiceService> = {
    load: (call) => this.#load(call.request.modelDir),
    unload: (call) => this.#unload(call.request),
    generate: (call, out) => this.#generate(call, out),
    pause: async (call) => ({ paused: await this.#pause(call.request.requestId) }),
    continue: async (call) => ({ continued: this.#continue(call.request.requestId) }),
    prepare: async () => ({ prepared: false }),
    status: async () => this.#status(),
  };

  get busy(): boolean {
    return this.#state.kind === 'busy' || this.#state.kind === 'loading';
  }

  /** Stops what runs or is paused and resolves when the worker is free. */
  async stop(): Promise<void> {
    this.#stopping = true;
    const running = this.#state.kind === 'busy' ? this.#state.running : undefined;
    for (const each of [running, this.#paused]) each?.job.stop();
    await Promise.all([running?.ended, this.#paused?.ended]);
  }

  async #load(modelDir: string): Promise<engine.LoadResponse> {
    if (!modelDir.startsWith('/')) {
      throw badRequest([{ field: 'model_dir', description: `expected an absolute path, got ${JSON.stringify(modelDir)}` }]);
    }
    if (this.#atWork) throw busy('it is at work');
    const { clock, emit, worker } = this.#options;
    const startedAt = clock.now();
    this.#state = { kind: 'loading' };
    try {
      const loaded = await worker.load(modelDir);
      this.#loaded.delete(fullName(loaded.info)); // loaded again, it is the last one
      this.#loaded.set(fullName(loaded.info), loaded);
      const loadMs = clock.now() - startedAt;
      emit({
        type: 'modelLoaded',
        model: loaded.info.name,
        revision: loaded.info.revision,
        determinismClass: loaded.determinismClass,
        loadMs,
      });
      return { model: modelMessage(loaded.info, 1), loadMs };
    } finally {
      this.#state = { kind: 'idle' };
    }
  }

  async #unload(request: engine.UnloadRequest): Promise<engine.UnloadResponse> {
    if (this.#atWork) throw busy('it is at work');
    this.#state = { kind: 'loading' };
    try {
      for (let leaving = this.#find(request); leaving; leaving = this.#find(request)) {
        this.#loaded.delete(fullName(leaving.info));
        await this.#options.worker.unload(fullName(leaving.info));
        this.#options.emit({ type: 'modelUnloaded', model: leaving.info.name, revision: leaving.info.revision });
      }
    } finally {
      this.#state = { kind: 'idle' };
    }
    return {};
  }

  /** The one loaded last, where no revision is named. */
  #find({ model, revision }: { readonly model: string; readonly revision: string }): Loaded | undefined {
    return [...this.#loaded.values()].findLast(({ info }) => info.name === model && (revision === '' || info.revision === revision));
  }

  async #generate(call: GenerateCall, out: GenerateWriter): Promise<void> {
    while (this.#state.kind === 'busy' && this.#state.running.cancelled) await this.#state.running.ended;
    call.signal.throwIfAborted();
    if (this.#state.kind === 'busy') throw busy(`it draws ${this.#state.running.requestId}`);
    if (this.#state.kind !== 'idle' || this.#loaded.size === 0) throw notReady(this.#state.kind === 'idle' ? 'empty' : this.#state.kind);
    const loaded = this.#find(call.request);
    if (!loaded) throw unknownModel(wanted(call.request), [...this.#loaded.keys()]);
    const order = orderOf(call.request, loaded.info);

    const { clock, emit, worker } = this.#options;
    const { requestId } = call.request;
    const job = worker.draw(fullName(loaded.info), order, {
      onStep: ({ step, total, imageIndex, stepMs }) => {
        running.step = step;
        running.progressAt = clock.now();
        send(out, { $case: 'step', value: { step, total, imageIndex, stepMs } });
      },
      onImage: ({ imageIndex, width, height, rgb }) => {
        running.progressAt = clock.now();
        send(out, { $case: 'image', value: { imageIndex, width, height, data: Buffer.from(rgb.buffer) } });
      },
    });
    const running: Running = {
      requestId,
      job,
      step: 0,
      total: order.steps,
      progressAt: clock.now(),
      cancelled: false,
      ended: job.drawn.then(
        () => this.#free(running),
        () => this.#free(running),
      ),
    };
    const onAbort = () => {
      running.cancelled = true;
      job.stop();
      // The thread may be in the middle of another's step: it drops what is paused before it does anything else.
      if (this.#paused === running) this.#paused = undefined;
    };
    this.#state = { kind: 'busy', running };
    call.signal.addEventListener('abort', onAbort, { once: true });
    try {
      const drawn = await job.drawn.catch((reason) => {
        throw this.#stopping ? stopped() : reason;
      });
      this.#completedCount++;
      await out.write({ event: { $case: 'done', value: drawn } });
      emit({ type: 'pictureDrawn', requestId, imageCount: order.noises.length, ...drawn });
    } finally {
      call.signal.removeEventListener('abort', onAbort);
      await running.ended;
    }
  }

  async #pause(requestId: string): Promise<boolean> {
    if (this.#paused || this.#state.kind !== 'busy' || this.#state.running.requestId !== requestId) return false;
    const { running } = this.#state;
    if (!(await running.job.pause())) return false;
    this.#paused = running;
    this.#state = { kind: 'idle' };
    return true;
  }

  #continue(requestId: string): boolean {
    const running = this.#paused;
    if (running?.requestId !== requestId) return false;
    if (this.#state.kind !== 'idle') throw busy('it is at work');
    this.#paused = undefined;
    this.#state = { kind: 'busy', running };
    running.progressAt = this.#options.clock.now();
    running.job.continue();
    return true;
  }

  get #atWork(): boolean {
    return this.#state.kind === 'busy' || this.#state.kind === 'loading' || this.#paused !== undefined;
  }

  #free(running: Running): void {
    this.#lastRequestId = running.requestId;
    if (this.#paused === running) this.#paused = undefined;
    if (this.#state.kind === 'busy' && this.#state.running === running) this.#state = { kind: 'idle' };
  }

  #status(): engine.StatusResponse {
    const state = this.#state;
    const loaded = [...this.#loaded.values()];
    const running = state.kind === 'busy' ? state.running : undefined;
    const { usedBytes, totalBytes } = this.#options.memory();
    return {
      engine: 'onnx',
      version: ENGINE_VERSION,
      state: state.kind === 'idle' && loaded.length === 0 ? engine.EngineState.EMPTY : STATES[state.kind],
      determinismClass: loaded.at(-1)?.determinismClass ?? '',
      models: loaded.map(({ info }) => modelMessage(info, 1)),
      requestId: running?.requestId ?? '',
      step: running?.step ?? 0,
      total: running?.total ?? 0,
      sinceProgressMs: running ? this.#options.clock.now() - running.progressAt : 0,
      memoryUsedBytes: BigInt(usedBytes),
      memoryTotalBytes: BigInt(totalBytes),
      device: 'cpu',
      completedCount: this.#completedCount,
      lastRequestId: this.#lastRequestId,
      pausedRequestId: this.#paused?.requestId ?? '',
      canPause: true,
      memoryPeakBytes: 0n,
      utilisationRatio: 0,
      temperatureCelsius: 0,
      canPrepare: false,
    };
  }
}

const STATES: Readonly<Record<State['kind'], engine.EngineState>> = {
  loading: engine.EngineState.LOADING,
  idle: engine.EngineState.IDLE,
  busy: engine.EngineState.BUSY,
};

function wanted({ model, revision }: engine.EngineGenerateRequest): string {
  return revision === '' ? model : fullName({ name: model, revision });
}

/** A caller that has left is noticed through the call's signal; its writes fail for the same reason. */
function send(out: GenerateWriter, event: engine.EngineGenerateEvent['event']): void {
  out.write({ event }).catch(() => {});
}

function busy(why: string): StatusError {
  return new StatusError({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.ENGINE_BUSY, message: `the engine is busy: ${why}` });
}

/** Not CANCELLED: the caller did not, and may try elsewhere. */
function stopped(): StatusError {
  return new StatusError({ code: Code.UNAVAILABLE, reason: Reason.DRAINING, message: 'the engine is stopping' });
}

function notReady(state: string): StatusError {
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.ENGINE_NOT_READY,
    message: `expected a loaded model, the engine is ${state}`,
  });
}
