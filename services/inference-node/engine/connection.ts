/** The EngineService of one engine process, in the node's words. */
import { engine } from '#contracts';
import { type Clock, Code, Reason, StatusError } from '#core';
import { Channel } from '#grpc';
import type { ModelInfo } from '#model-package';
import type { Drawable } from './engine-request.js';

const Service = engine.EngineServiceService;
const IDLE_POLL_MS = { first: 1, max: 20 };
/** Of an engine that is up: longer, and it hangs. */
const STATUS_TIMEOUT_MS = 2000;

export class EngineConnection {
  readonly #channel: Channel;
  readonly #clock: Clock;

  constructor(socketPath: string, clock: Clock) {
    this.#clock = clock;
    this.#channel = new Channel(`unix:${socketPath}`, { clock });
  }

  async status(signal?: AbortSignal, timeoutMs = STATUS_TIMEOUT_MS): Promise<engine.StatusResponse> {
    const deadlineAt = this.#clock.now() + timeoutMs;
    const { response } = await this.#channel.unary(Service.status, {}, { deadlineAt, ...(signal ? { signal } : {}) });
    return response;
  }

  async load(modelDir: string, options: { timeoutMs: number; signal: AbortSignal }): Promise<engine.LoadResponse> {
    const deadlineAt = this.#clock.now() + options.timeoutMs;
    const { response } = await this.#channel.unary(Service.load, { modelDir }, { deadlineAt, signal: options.signal });
    return response;
  }

  /** Frees the model's memory. */
  async unload({ name, revision }: ModelInfo, options: { timeoutMs: number; signal: AbortSignal }): Promise<void> {
    const deadlineAt = this.#clock.now() + options.timeoutMs;
    await this.#channel.unary(Service.unload, { model: name, revision }, { deadlineAt, signal: options.signal });
  }

  generate(request: engine.EngineGenerateRequest, signal: AbortSignal): AsyncIterable<engine.EngineGenerateEvent> {
    return this.#channel.serverStream(Service.generate, request, { signal });
  }

  /** Reads its text ahead, beside what runs. */
  async prepare({ model, revision, prompt, negativePrompt, guidanceScale }: Drawable, signal: AbortSignal): Promise<void> {
    const request = { model, revision, prompt, negativePrompt: guidanceScale > 0 ? negativePrompt : '' };
    await this.#channel.unary(Service.prepare, request, { signal });
  }

  /** True when the running request is off the engine; false when it goes on. */
  async pause(requestId: string, signal: AbortSignal): Promise<boolean> {
    const { response } = await this.#channel.unary(Service.pause, { requestId }, { signal });
    return response.paused;
  }

  /** True when the paused request goes on. Who ran until now may keep the engine busy for a moment. */
  async continue(requestId: string, signal: AbortSignal): Promise<boolean> {
    for (let waitMs = IDLE_POLL_MS.first; ; waitMs = Math.min(IDLE_POLL_MS.max, waitMs * 2)) {
      try {
        const { response } = await this.#channel.unary(Service.continue, { requestId }, { signal });
        return response.continued;
      } catch (thrown) {
        if (StatusError.from(thrown).reason !== Reason.ENGINE_BUSY) throw thrown;
      }
      await this.#clock.sleep(waitMs, signal);
    }
  }

  /**
   * Resolves when the engine draws nothing any more. A cancelled call ends at our side at once, so
   * only the engine itself can say that it has stopped. Rejects when it does not answer or `signal` aborts.
   */
  untilIdle(signal: AbortSignal): Promise<void> {
    return this.#until(({ state }) => state !== engine.EngineState.BUSY, signal);
  }

  /** Resolves when the engine no longer keeps this request paused. Rejects like `untilIdle`. */
  untilDropped(requestId: string, signal: AbortSignal): Promise<void> {
    return this.#until(({ pausedRequestId }) => pausedRequestId !== requestId, signal);
  }

  async #until(holds: (status: engine.StatusResponse) => boolean, signal: AbortSignal): Promise<void> {
    for (let waitMs = IDLE_POLL_MS.first; ; waitMs = Math.min(IDLE_POLL_MS.max, waitMs * 2)) {
      if (holds(await this.status(signal))) return;
      await this.#clock.sleep(waitMs, signal);
    }
  }

  close(): void {
    this.#channel.close();
  }
}

/** What a caller of the mesh is told when the engine call failed. The transport's own words mean that the process died. */
export function engineFailure(thrown: unknown): StatusError {
  const error = StatusError.from(thrown);
  const lost = error.reason === Reason.CONNECTION_LOST || error.reason === Reason.CONNECT_FAILED;
  return lost ? engineCrashed(error) : error;
}

export function engineCrashed(cause: unknown): StatusError {
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.ENGINE_CRASHED,
    message: 'the engine died while it drew this picture',
    cause,
  });
}

/** Not held against the request: whatever killed the engine, it was not running. */
export function lostWhilePaused(cause: unknown): StatusError {
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.ENGINE_NOT_READY,
    message: 'the engine died while this picture waited for another',
    cause,
  });
}
