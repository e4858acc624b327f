/**
 * The EngineService of a test: exact in protocol, scripted in behaviour. Steps end at absolute
 * times, so that a bench measures the mesh and not the drift of timers.
 */
import type { engine } from '#contracts';
import { badRequest, type Clock, Code, Reason, StatusError, type Violation } from '#core';
import type { Call, HandlersOf, Writer } from '#grpc';
import { fullName, latentShape, type ModelInfo, modelMessage, resolveRequest } from '#model-package';
import { scriptedPicture } from './picture.js';
import { readScript, type Script } from './script.js';

type Service = typeof engine.EngineServiceService;
type Request = engine.EngineGenerateRequest;
type Event = engine.EngineGenerateEvent;

export interface ScriptableEngineOptions {
  readonly clock: Clock;
  readonly script: Script;
  readonly loadMs: number;
  readonly laterLoadMs: number;
  readonly modelRoom: number;
  readonly determinismClass: string;
  /** Mixed into every picture; 0n draws the right ones. */
  readonly drift: bigint;
  readonly readModel: (modelDir: string) => ModelInfo;
  /** True for the first caller with this name; for faults that happen once. */
  readonly firstTime: (name: string) => boolean;
  /** Ends the process without a word. */
  readonly crash: () => never;
  readonly memoryUsedBytes: () => number;
}

interface Drawing {
  readonly requestId: string;
  step: number;
  readonly total: number;
  progressAt: number;
  /** Answers who wants it paused. */
  onPause: ((paused: boolean) => void) | undefined;
  /** Ends its pause. */
  go: () => void;
}

/** engine.EngineState; the enum's own object is not needed for four numbers. */
const STATE = { empty: 1, loading: 2, idle: 3, busy: 4 } as const;

export function scriptableEngine(options: ScriptableEngineOptions): HandlersOf<Service> {
  const { clock } = options;
  /** By full name, in the order of loading. */
  const models = new Map<string, ModelInfo>();
  const find = ({ model, revision }: { model: string; revision: string }) =>
    [...models.values()].findLast((info) => info.name === model && (revision === '' || info.revision === revision));
  let loading = false;
  let loadCount = 0;
  let running: Drawing | undefined;
  let paused: Drawing | undefined;
  let completedCount = 0n;
  let lastRequestId = '';

  async function load(call: Call<engine.LoadRequest>): Promise<engine.LoadResponse> {
    const startedAt = clock.now();
    loading = true;
    await clock.sleep(loadCount++ === 0 ? options.loadMs : options.laterLoadMs, call.signal).finally(() => {
      loading = false;
    });
    const model = options.readModel(call.request.modelDir);
    if (models.size >= options.modelRoom)
      throw failure(Code.RESOURCE_EXHAUSTED, Reason.OUT_OF_MEMORY, `no room beside ${models.size} models`);
    models.delete(fullName(model));
    models.set(fullName(model), model);
    return { model: modelMessage(model, 1), loadMs: clock.now() - startedAt };
  }

  async function status(): Promise<engine.StatusResponse> {
    return {
      engine: 'scripted',
      version: '1',
      state: loading ? STATE.loading : running ? STATE.busy : models.size > 0 ? STATE.idle : STATE.empty,
      determinismClass: models.size > 0 ? options.determinismClass : '',
      models: [...models.values()].map((model) => modelMessage(model, 1)),
      requestId: running?.requestId ?? '',
      step: running?.step ?? 0,
      total: running?.total ?? 0,
      sinceProgressMs: running ? clock.now() - running.progressAt : 0,
      memoryUsedBytes: BigInt(options.memoryUsedBytes()),
      memoryTotalBytes: 0n,
      device: 'cpu',
      completedCount,
      lastRequestId,
      pausedRequestId: paused?.requestId ?? '',
      canPause: true,
      memoryPeakBytes: 0n,
      utilisationRatio: 0,
      temperatureCelsius: 0,
      canPrepare: true,
    };
  }

  async function generate(call: Call<Request>, out: Writer<Event>): Promise<void> {
    const { request } = call;
    if (models.size === 0) throw failure(Code.UNAVAILABLE, Reason.ENGINE_NOT_READY, 'expected Load before Generate');
    if (running) throw failure(Code.RESOURCE_EXHAUSTED, Reason.ENGINE_BUSY, `busy with ${running.requestId}`);
    if (loading) throw failure(Code.RESOURCE_EXHAUSTED, Reason.ENGINE_BUSY, 'busy with loading');
    const model = find(request);
    if (!model) throw failure(Code.NOT_FOUND, Reason.UNKNOWN_MODEL, `expected ${[...models.keys()].join(', ')}, got ${request.model}`);
    checkRequest(request, model);
    const { requestId, steps: total } = request;
    const drawing: Drawing = { requestId, step: 0, total, progressAt: clock.now(), onPause: undefined, go: () => {} };
    running = drawing;
    try {
      await draw(call, out, drawing);
      completedCount++;
    } finally {
      lastRequestId = requestId;
      if (running === drawing) running = undefined;
      if (paused === drawing) paused = undefined;
      drawing.onPause?.(false);
    }
  }

  function pause({ request: { requestId } }: Call<engine.PauseRequest>): Promise<engine.PauseResponse> {
    const drawing = running;
    if (paused || drawing?.requestId !== requestId || drawing.onPause) return Promise.resolve({ paused: false });
    return new Promise((resolve) => {
      drawing.onPause = (isPaused) => resolve({ paused: isPaused });
    });
  }

  async function goOn({ request: { requestId } }: Call<engine.ContinueRequest>): Promise<engine.ContinueResponse> {
    if (paused?.requestId !== requestId) return { continued: false };
    if (running) throw failure(Code.RESOURCE_EXHAUSTED, Reason.ENGINE_BUSY, `busy with ${running.requestId}`);
    running = paused;
    paused = undefined;
    running.progressAt = clock.now();
    running.go();
    return { continued: true };
  }

  /** How long it was paused before this step, milliseconds. */
  async function pauseOf(drawing: Drawing, signal: AbortSignal): Promise<number> {
    if (!drawing.onPause) return 0;
    const pausedAt = clock.now();
    await new Promise<void>((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      drawing.go = resolve;
      running = undefined;
      paused = drawing;
      drawing.onPause?.(true);
      drawing.onPause = undefined;
    });
    return clock.now() - pausedAt;
  }

  function effective(request: Request): Script {
    if (request.requestId.startsWith('canary')) return { ...options.script, fault: undefined, cancelDelayMs: 0 };
    const script = readScript(request.prompt, options.script);
    return script.fault && script.once && !options.firstTime(request.prompt) ? { ...script, fault: undefined } : script;
  }

  async function draw(call: Call<Request>, out: Writer<Event>, drawing: Drawing): Promise<void> {
    const { request } = call;
    const script = effective(request);
    let startedAt = clock.now();
    let dueAt = startedAt;
    const until = (ms: number) => {
      dueAt += ms;
      return wait(clock, dueAt - clock.now(), call.signal, script.cancelDelayMs);
    };
    for (const [imageIndex, item] of request.items.entries()) {
      for (let step = 1; step <= request.steps; step++) {
        const pausedMs = await pauseOf(drawing, call.signal);
        dueAt += pausedMs;
        startedAt += pausedMs;
        await failAt(step, script, call.signal);
        await until(script.stepMs);
        Object.assign(drawing, { step, progressAt: clock.now() });
        await out.write({ event: { $case: 'step', value: { step, total: request.steps, imageIndex, stepMs: script.stepMs } } });
      }
      await until(script.decodeMs);
      const { width, height } = request;
      const seed = item.seed ^ options.drift;
      const picture = scriptedPicture({ prompt: request.prompt, seed, width, height }, script.incompressible);
      const data = script.fault?.kind === 'garbage' ? picture.subarray(0, 1000) : finished(picture, script);
      await out.write({ event: { $case: 'image', value: { imageIndex, width, height, data } } });
    }
    const forwardCount = request.steps * request.items.length;
    const times = { encodeMs: 0, denoiseMs: clock.now() - startedAt, decodeMs: script.decodeMs };
    await out.write({ event: { $case: 'done', value: { ...times, promptTokens: tokenCount(request.prompt), forwardCount } } });
  }

  async function failAt(step: number, { fault }: Script, signal: AbortSignal): Promise<void> {
    if (fault?.atStep !== step) return;
    if (fault.kind === 'crash') options.crash();
    if (fault.kind === 'oom') throw failure(Code.RESOURCE_EXHAUSTED, Reason.OUT_OF_MEMORY, `out of memory in step ${step}`);
    if (fault.kind === 'hang') await new Promise(() => {});
    if (fault.kind === 'stuck') await clock.sleep(Number.MAX_SAFE_INTEGER, signal);
  }

  return {
    load,
    unload: async ({ request }) => {
      if (running || paused) throw failure(Code.RESOURCE_EXHAUSTED, Reason.ENGINE_BUSY, 'a model is in use');
      for (let leaving = find(request); leaving; leaving = find(request)) models.delete(fullName(leaving));
      return {};
    },
    generate,
    pause,
    continue: goOn,
    prepare: async ({ request }) => ({ prepared: tokenCount(request.prompt) <= (find(request)?.limits.maxPromptTokens ?? 0) }),
    status,
  };
}

/** What an engine's own check of its output says. */
function finished(picture: Buffer, { fault }: Script): Buffer {
  if (fault?.kind === 'nan') throw failure(Code.INTERNAL, Reason.NAN_OUTPUT, 'the latents are not finite');
  if (fault?.kind === 'blank') throw failure(Code.INTERNAL, Reason.BLANK_OUTPUT, 'the picture has one colour');
  return picture;
}

function checkRequest(request: Request, model: ModelInfo): void {
  const resolution = resolveRequest({ ...request, requestId: '', imageCount: request.items.length, format: 0, priority: 0 }, model);
  const violations = [...zeros(request), ...(resolution.ok ? [] : resolution.violations)];
  if (violations.length === 0) violations.push(...noiseViolations(request));
  if (violations.length > 0) throw badRequest(violations);
  if (!resolution.ok) throw failure(Code.NOT_FOUND, Reason.UNKNOWN_LORA, `no LoRA ${resolution.unknownLoras.join(', ')}`);
  const limit = model.limits.maxPromptTokens;
  const tokens = tokenCount(request.prompt);
  if (tokens <= limit) return;
  throw new StatusError({
    code: Code.INVALID_ARGUMENT,
    reason: Reason.PROMPT_TOO_LONG,
    message: `expected at most ${limit} tokens, got ${tokens}`,
    metadata: { tokens: String(tokens), limit: String(limit) },
  });
}

/** Zero means "the default" to a node; an engine has none. */
function zeros(request: Request): Violation[] {
  const fields = { width: request.width, height: request.height, steps: request.steps, items: request.items.length };
  return Object.entries(fields).flatMap(([field, value]) => (value === 0 ? [{ field, description: 'expected a value, got none' }] : []));
}

function noiseViolations({ width, height, items }: Request): Violation[] {
  const expected = latentShape(width, height).elementCount * Float32Array.BYTES_PER_ELEMENT;
  return items.flatMap(({ latents }, i) =>
    latents.length === expected ? [] : [{ field: `items[${i}].latents`, description: `expected ${expected} bytes, got ${latents.length}` }],
  );
}

/** Words, and the eight tokens of a chat template. */
function tokenCount(prompt: string): number {
  return prompt.split(/\s+/).filter((word) => word !== '').length + 8;
}

/** Waits; a cancel ends the wait with an error, after `cancelDelayMs`. */
async function wait(clock: Clock, ms: number, signal: AbortSignal, cancelDelayMs: number): Promise<void> {
  try {
    // Also a step that takes no time lets other calls in.
    if (ms <= 0) await new Promise(setImmediate);
    else await clock.sleep(ms, signal);
    signal.throwIfAborted();
  } catch (reason) {
    if (cancelDelayMs > 0) await clock.sleep(cancelDelayMs);
    throw reason;
  }
}

function failure(code: Code, reason: Reason, message: string): StatusError {
  return new StatusError({ code, reason, message });
}
