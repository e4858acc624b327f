/**
 * What every engine must do, whatever draws inside it: run this on a new one before a node starts
 * it. The engine is a process; nothing is known of it but its command and its socket.
 *
 *   describeEngine('engine-onnx', { command: [process.execPath, main], modelDir, can: { … } });
 *
 * What an engine cannot do is said in `can`; the tests of it are then skipped, not passed.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { engine, type generation } from '#contracts';
import { Code, Reason } from '#core';
import { latentShape } from '#model-package';
import { torchNoise } from '#noise';
import { type EngineProcess, type EngineStart, startEngine } from '../support/engine-process.js';
import { copyOfModel } from '../support/model-folder.js';
import { useShared } from '../support/shared.js';

export interface EngineUnderTest {
  readonly command: EngineStart['command'];
  readonly env?: Readonly<Record<string, string>>;
  /** A folder that Load takes. */
  readonly modelDir: string;
  readonly can: Capabilities;
  /** For a request that is to be caught while it runs: about a second or more. Default: as many steps and pixels as the model allows. */
  readonly slowRequest?: Partial<engine.EngineGenerateRequest>;
}

export interface Capabilities {
  /** Pictures follow from prompt and noise: other noise, other picture. */
  readonly draw: boolean;
  /** Noise that holds NaN is INTERNAL/NAN_OUTPUT. */
  readonly detectNaN: boolean;
  /** A prompt over the model's token limit is refused. */
  readonly countTokens: boolean;
  /** Pause and Continue are there. */
  readonly pause: boolean;
  /** Prepare is there. */
  readonly prepare: boolean;
  /** Name of an adapter of the model whose effect grows with its strength; undefined: none. */
  readonly lora: string | undefined;
}

const Service = engine.EngineServiceService;
const POLL = { interval: 1, timeout: 10_000 };
const PROMPT = 'a red circle on a blue background';

export function describeEngine(name: string, under: EngineUnderTest): void {
  const { can } = under;
  const living = new Living(under);
  useShared(
    () => living.loaded(),
    () => living.close(),
  );

  describe(`${name}: contract`, () => {
    let running: EngineProcess;
    let model: generation.Model;
    beforeEach(async () => {
      ({ process: running, model } = await living.loaded());
    });
    const request = (changes: Partial<engine.EngineGenerateRequest> = {}) => requestFor(model, changes);
    const slow = (changes: Partial<engine.EngineGenerateRequest> = {}) => slowRequestFor(model, { ...under.slowRequest, ...changes });
    const failureOf = (changes: Partial<engine.EngineGenerateRequest>) =>
      collect(running.generate(request(changes))).catch((error) => error);

    test('Status of a loaded engine says what it is and is idle', async () => {
      const status = await running.status();
      expect(status).toMatchObject({ state: engine.EngineState.IDLE, requestId: '', models: [{ name: model.name }] });
      expect(status.engine).not.toBe('');
      expect(status.version).not.toBe('');
      expect(status.determinismClass).not.toBe('');
    });

    test('events come in order: every step, then the picture, picture by picture, then done', async () => {
      const events = await collect(running.generate(request({ steps: 3, items: [item(model, 1n), item(model, 2n)] })));
      expect(events.map(tell)).toEqual([
        'step 0 1/3',
        'step 0 2/3',
        'step 0 3/3',
        'image 0',
        'step 1 1/3',
        'step 1 2/3',
        'step 1 3/3',
        'image 1',
        'done',
      ]);
      const done = events.at(-1)?.event;
      expect(done).toMatchObject({ $case: 'done', value: { forwardCount: 6 } });
    });

    test('a picture is as large as it was ordered', async () => {
      const sides = { width: model.limits?.minWidth ?? 0, height: (model.limits?.minHeight ?? 0) + (model.limits?.sizeMultiple ?? 0) };
      const [image] = await pictures(running, request({ ...sides, items: [item(model, 1n, sides)] }));
      expect(image).toMatchObject(sides);
      expect(image?.data.length).toBe(sides.width * sides.height * 3);
    });

    test('the same request gives the same bytes, alone or with others', async () => {
      const [first] = await pictures(running, request({ items: [item(model, 5n)] }));
      const [other, again] = await pictures(running, request({ items: [item(model, 6n), item(model, 5n)] }));
      expect(digest(again)).toBe(digest(first));
      if (can.draw) expect(digest(other)).not.toBe(digest(first));
    });

    test('Status and a second request are answered while it computes', async () => {
      const events = running.generate(slow({ requestId: 'slow-1' }))[Symbol.asyncIterator]();
      await events.next();
      expect(await running.status()).toMatchObject({ state: engine.EngineState.BUSY, requestId: 'slow-1' });
      await expect(collect(running.generate(request()))).rejects.toMatchObject({
        code: Code.RESOURCE_EXHAUSTED,
        reason: Reason.ENGINE_BUSY,
      });
      const later: string[] = [];
      for (let next = await events.next(); !next.done; next = await events.next()) later.push(tell(next.value));
      expect(later.at(-1)).toBe('done');
    });

    test('a cancelled request leaves within one step', async () => {
      const before = await running.status();
      const leave = new AbortController();
      const order = slow({ requestId: 'leaves' });
      let seen = 0;
      const call = (async () => {
        for await (const { event } of running.generate(order, leave.signal)) {
          if (event?.$case === 'step') seen = event.value.step;
          if (seen === 2) leave.abort();
        }
      })();
      await expect(call).rejects.toMatchObject({ code: Code.CANCELLED });
      // The question travels behind the cancel on the same connection, so the answer knows of it.
      const cancelledAt = (await running.status()).step;
      let furthest = 0;
      const look = async () => {
        const status = await running.status();
        furthest = Math.max(furthest, status.step);
        return status;
      };
      const ended = expect.poll(look, { interval: 1, timeout: 10_000 });
      await ended.toMatchObject({ state: engine.EngineState.IDLE, lastRequestId: 'leaves', completedCount: before.completedCount });
      expect(furthest).toBeLessThanOrEqual(cancelledAt + 1);
      expect(cancelledAt).toBeLessThan(order.steps);
      expect((await pictures(running, request())).length).toBe(1);
    });

    describe.skipIf(!can.pause)('pause', () => {
      /** Begins a long request and says when so many of its steps are done; its picture comes at the end. */
      const begin = (requestId: string, { signal, ...changes }: Partial<engine.EngineGenerateRequest> & { signal?: AbortSignal } = {}) => {
        const order = slow({ requestId, ...changes });
        let stepCount = 0;
        const call = (async () => {
          const images: engine.RgbImage[] = [];
          for await (const { event } of running.generate(order, signal)) {
            if (event?.$case === 'step') stepCount++;
            if (event?.$case === 'image') images.push(event.value);
          }
          return images;
        })();
        call.catch(() => {}); // read by the test, later
        return {
          order,
          call,
          steps: () => stepCount,
          stepped: (count = 1) => expect.poll(() => stepCount, POLL).toBeGreaterThanOrEqual(count),
        };
      };

      test('a paused request leaves the engine to another, and goes on to the same bytes', async () => {
        const loras = (strength: number) => (can.lora === undefined ? [] : [{ name: can.lora, strength }]);
        const quarter = Math.ceil((model.limits?.maxSteps ?? 0) / 4);
        const { order, call, steps, stepped } = begin('long', { steps: quarter, loras: loras(0.5) });
        await stepped();
        expect(await running.pause('long')).toBe(true);
        const stepCount = steps();
        expect(await running.status()).toMatchObject({ state: engine.EngineState.IDLE, requestId: '', pausedRequestId: 'long' });
        // Other strengths: whatever an engine keeps of them must not push out what the paused one needs.
        for (const strength of [1, 0.25, 0.75]) {
          expect(await pictures(running, request({ requestId: 'short', loras: loras(strength) }))).toHaveLength(1);
        }
        expect(steps() - stepCount).toBeLessThanOrEqual(1); // one that was on its way
        expect(await running.continue('long')).toBe(true);
        await stepped(stepCount + 2);
        expect(await running.pause('long')).toBe(true);
        await pictures(running, request({ requestId: 'short' }));
        expect(await running.continue('long')).toBe(true);
        const [paused] = await call;
        const [unpaused] = await pictures(running, order);
        expect(digest(paused)).toBe(digest(unpaused));
        expect(await running.status()).toMatchObject({ state: engine.EngineState.IDLE, pausedRequestId: '' });
      });

      test('paused before its first step, it is drawn like any other', async () => {
        const order = slow({ requestId: 'first', steps: Math.ceil((model.limits?.maxSteps ?? 0) / 4) });
        const call = collect(running.generate(order));
        await expect.poll(async () => (await running.status()).requestId, POLL).toBe('first');
        expect(await running.pause('first')).toBe(true);
        await pictures(running, request());
        expect(await running.continue('first')).toBe(true);
        expect((await call).map(tell).at(-1)).toBe('done');
      });

      test('with no step left it goes on to its end', async () => {
        const order = request({ requestId: 'brief', steps: model.limits?.minSteps ?? 1 });
        const call = collect(running.generate(order));
        await expect.poll(async () => (await running.status()).lastRequestId === 'brief' || running.pause('brief'), POLL).toBe(true);
        // Either it was over, or it was caught before a step; never both.
        if ((await running.status()).pausedRequestId === 'brief') expect(await running.continue('brief')).toBe(true);
        expect((await call).map(tell).at(-1)).toBe('done');
        expect(await running.pause('brief')).toBe(false);
      });

      test('one is paused at most, and only what runs can be; nothing goes on beside another', async () => {
        expect(await running.pause('nobody')).toBe(false);
        expect(await running.continue('nobody')).toBe(false);
        const leave = new AbortController();
        const [one, other] = [begin('one', leave), () => begin('other', leave)];
        await one.stepped();
        expect(await running.pause('one')).toBe(true);
        const second = other();
        await second.stepped();
        expect(await running.pause('other')).toBe(false);
        await expect(running.continue('one')).rejects.toMatchObject({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.ENGINE_BUSY });
        await expect(running.channel.unary(Service.unload, { model: model.name, revision: '' })).rejects.toMatchObject({
          reason: Reason.ENGINE_BUSY,
        });
        leave.abort();
        await expect(one.call).rejects.toMatchObject({ code: Code.CANCELLED });
        await expect(second.call).rejects.toMatchObject({ code: Code.CANCELLED });
        const idle = { state: engine.EngineState.IDLE, requestId: '', pausedRequestId: '' };
        await expect.poll(() => running.status(), POLL).toMatchObject(idle);
        expect((await pictures(running, request())).length).toBe(1);
      });

      test('cancelled while paused it is dropped at once, and the running one is undisturbed', async () => {
        const [left, kept] = [new AbortController(), new AbortController()];
        const paused = begin('leaves', left);
        await paused.stepped();
        expect(await running.pause('leaves')).toBe(true);
        const newcomer = begin('stays', kept);
        await newcomer.stepped();
        left.abort();
        await expect.poll(async () => (await running.status()).pausedRequestId, POLL).toBe('');
        expect(await running.status()).toMatchObject({ state: engine.EngineState.BUSY, requestId: 'stays' });
        expect(await running.continue('leaves')).toBe(false);
        await newcomer.stepped(newcomer.steps() + 1);
        kept.abort();
        await expect.poll(() => running.status(), POLL).toMatchObject({ state: engine.EngineState.IDLE });
      });

      test('cancelled while paused it is dropped, also when another is paused before the next step', async () => {
        const [left, kept] = [new AbortController(), new AbortController()];
        const paused = begin('leaves', left);
        await paused.stepped();
        expect(await running.pause('leaves')).toBe(true);
        const newcomer = begin('stays', kept);
        await newcomer.stepped();
        left.abort();
        await expect.poll(() => running.pause('stays'), POLL).toBe(true); // as soon as the other is gone
        await expect.poll(() => running.status(), POLL).toMatchObject({ lastRequestId: 'leaves', pausedRequestId: 'stays' });
        expect(await running.continue('stays')).toBe(true);
        await newcomer.stepped(newcomer.steps() + 1);
        kept.abort();
        await expect.poll(() => running.status(), POLL).toMatchObject({ state: engine.EngineState.IDLE, lastRequestId: 'stays' });
      });
    });

    test('Prepare reads a text ahead beside a drawing, changes no byte, and what is no good is left for Generate to say', async () => {
      expect((await running.status()).canPrepare).toBe(can.prepare);
      const prepare = async (changes: Partial<engine.PrepareRequest>) =>
        (await running.channel.unary(Service.prepare, { model: model.name, revision: '', prompt: PROMPT, negativePrompt: '', ...changes }))
          .response.prepared;
      const leave = new AbortController();
      const call = collect(running.generate(slow({ requestId: 'before' }), leave.signal), () => {});
      call.catch(() => {}); // read below
      const prompt = 'a green square';
      await expect.poll(async () => (await running.status()).step, POLL).toBeGreaterThan(0);
      expect(await prepare({ prompt })).toBe(can.prepare);
      expect(await running.status()).toMatchObject({ state: engine.EngineState.BUSY, requestId: 'before' });
      leave.abort();
      await expect(call).rejects.toMatchObject({ code: Code.CANCELLED });
      await expect.poll(() => running.status(), POLL).toMatchObject({ state: engine.EngineState.IDLE });
      const [prepared] = await pictures(running, request({ prompt }));
      const [again] = await pictures(running, request({ prompt }));
      expect(digest(prepared)).toBe(digest(again));
      expect(await prepare({ model: 'no-such-model' })).toBe(false);
      if (can.countTokens) expect(await prepare({ prompt: 'circle '.repeat(model.limits?.maxPromptTokens ?? 0) })).toBe(false);
    });

    test.each([
      ['an unknown model', { model: 'no-such-model' }, Code.NOT_FOUND, Reason.UNKNOWN_MODEL],
      ['an unknown LoRA', { loras: [{ name: 'no-such-lora', strength: 1 }] }, Code.NOT_FOUND, Reason.UNKNOWN_LORA],
      ['an empty prompt', { prompt: '' }, Code.INVALID_ARGUMENT, Reason.BAD_REQUEST],
      ['no steps', { steps: 0 }, Code.INVALID_ARGUMENT, Reason.BAD_REQUEST],
      ['no items', { items: [] }, Code.INVALID_ARGUMENT, Reason.BAD_REQUEST],
      ['an odd size', { width: 100 }, Code.INVALID_ARGUMENT, Reason.BAD_REQUEST],
      ['too little noise', { items: [{ seed: 1n, latents: Buffer.alloc(64) }] }, Code.INVALID_ARGUMENT, Reason.BAD_REQUEST],
    ] as const)('%s is refused, and the next request is drawn', async (_what, changes, code, reason) => {
      expect(await failureOf(changes as Partial<engine.EngineGenerateRequest>)).toMatchObject({ code, reason });
      expect((await pictures(running, request())).length).toBe(1);
    });

    test('every violation is named at once', async () => {
      const error = await failureOf({ width: 7, steps: 100_000, prompt: '' });
      expect(error.details.violations.map((violation: { field: string }) => violation.field).sort()).toEqual(['prompt', 'steps', 'width']);
    });

    test('bytes that are no request are INVALID_ARGUMENT', async () => {
      const garbage = { ...Service.generate, requestSerialize: () => Buffer.from([0xff, 0xff, 0xff]) };
      await expect(collect(running.channel.serverStream(garbage, request()))).rejects.toMatchObject({ code: Code.INVALID_ARGUMENT });
    });

    test.skipIf(!can.countTokens)('too long a prompt is refused with its length and the limit', async () => {
      const error = await failureOf({ prompt: 'circle '.repeat(model.limits?.maxPromptTokens ?? 0) });
      expect(error).toMatchObject({ code: Code.INVALID_ARGUMENT, reason: Reason.PROMPT_TOO_LONG });
      expect(error.details.metadata).toMatchObject({ limit: String(model.limits?.maxPromptTokens) });
    });

    test.skipIf(!can.detectNaN)('latents that are not finite are never a picture', async () => {
      const noise = new Float32Array(latentShape(request().width, request().height).elementCount).fill(Number.NaN);
      const error = await failureOf({ items: [{ seed: 1n, latents: Buffer.from(noise.buffer) }] });
      expect(error).toMatchObject({ code: Code.INTERNAL, reason: Reason.NAN_OUTPUT });
    });

    describe.skipIf(can.lora === undefined)('LoRA', () => {
      const drawn = async (strength: number) => {
        const [image] = await pictures(running, request({ loras: [{ name: can.lora ?? '', strength }] }));
        return image?.data ?? new Uint8Array();
      };

      test('strength 0 is the bare model to the byte', async () => {
        const [bare] = await pictures(running, request());
        expect(Buffer.from(await drawn(0)).equals(Buffer.from(bare?.data ?? []))).toBe(true);
      });

      test('more strength, more difference', async () => {
        const [bare] = await pictures(running, request());
        const distances: number[] = [];
        for (const strength of [0.25, 0.5, 0.75, 1]) distances.push(distance(await drawn(strength), bare?.data ?? new Uint8Array()));
        expect(distances).toEqual([...distances].sort((a, b) => a - b));
        expect(distances[0]).toBeGreaterThan(0);
      });

      test('the same strength gives the same bytes after others', async () => {
        const first = await drawn(0.7);
        for (const strength of [0.1, 0.2, 0.3, 0.4, 0.5]) await drawn(strength);
        expect(distance(await drawn(0.7), first)).toBe(0);
      });
    });
  });

  describe(`${name}: life`, () => {
    test('before Load and after Unload it is empty and says so', async () => {
      const { process, model } = await living.loaded();
      await process.channel.unary(Service.unload, { model: model.name, revision: '' });
      expect(await process.status()).toMatchObject({ state: engine.EngineState.EMPTY, models: [] });
      await expect(collect(process.generate(requestFor(model, {})))).rejects.toMatchObject({
        code: Code.UNAVAILABLE,
        reason: Reason.ENGINE_NOT_READY,
      });
      await process.channel.unary(Service.unload, { model: model.name, revision: '' });
      await process.load(under.modelDir);
      expect((await pictures(process, requestFor(model, {}))).length).toBe(1);
    });

    test('two models and two revisions of one are loaded at once, drawn by name and revision, and unloaded one by one', async () => {
      const { process, model } = await living.loaded();
      const dirs = [
        await copyOfModel(under.modelDir, { name: 'other', revision: '1' }),
        await copyOfModel(under.modelDir, { revision: 'next' }),
      ];
      onTestFinished(() => Promise.all(dirs.map((dir) => rm(dir, { recursive: true }))).then(() => {}));
      const [before] = await pictures(process, requestFor(model, {}));
      for (const dir of dirs) await process.load(dir);
      const loaded = async () => (await process.status()).models.map(({ name, revision }) => `${name}@${revision}`);
      const own = `${model.name}@${model.revision}`;
      expect(await loaded()).toEqual([own, 'other@1', `${model.name}@next`]);
      const drawn = async (changes: Partial<engine.EngineGenerateRequest>) =>
        digest((await pictures(process, requestFor(model, changes)))[0]);
      expect(await drawn({ model: 'other' })).toBe(digest(before)); // the same weights
      expect(await drawn({ revision: 'next' })).toBe(digest(before));
      await process.channel.unary(Service.unload, { model: 'other', revision: '' });
      await process.channel.unary(Service.unload, { model: model.name, revision: 'next' });
      expect(await loaded()).toEqual([own]);
      const refused = { code: Code.NOT_FOUND, reason: Reason.UNKNOWN_MODEL };
      await expect(drawn({ model: 'other' })).rejects.toMatchObject(refused);
      await expect(drawn({ revision: 'next' })).rejects.toMatchObject(refused);
      await expect(process.load(tmpdir())).rejects.toMatchObject({ reason: Reason.MODEL_UNUSABLE });
      expect(await drawn({ revision: model.revision })).toBe(digest(before));
    });

    test('a folder that is no model is MODEL_UNUSABLE, and a good one is taken after it', async () => {
      const { process, model } = await living.loaded();
      await process.channel.unary(Service.unload, { model: model.name, revision: '' });
      await expect(process.load(tmpdir())).rejects.toMatchObject({ code: Code.FAILED_PRECONDITION, reason: Reason.MODEL_UNUSABLE });
      expect(await process.status()).toMatchObject({ state: engine.EngineState.EMPTY });
      await process.load(under.modelDir);
    });

    test('killed in the middle and started again on the same socket, it draws the same bytes', async () => {
      const { process, model } = await living.takeLoaded();
      const [before] = await pictures(process, requestFor(model, {}));
      const call = collect(process.generate(slowRequestFor(model, { ...under.slowRequest })), () => process.kill('SIGKILL'));
      await expect(call).rejects.toMatchObject({ code: Code.UNAVAILABLE });
      expect(await process.exited).toMatchObject({ signal: 'SIGKILL' });
      const again = await living.loaded({ socketPath: process.socketPath });
      const [after] = await pictures(again.process, requestFor(model, {}));
      expect(digest(after)).toBe(digest(before));
    });

    test('SIGTERM in the middle of a request ends it cleanly', async () => {
      const { process, model } = await living.takeLoaded();
      const call = collect(process.generate(slowRequestFor(model, { ...under.slowRequest })), () => process.kill('SIGTERM'));
      await expect(call).rejects.toMatchObject({ code: Code.UNAVAILABLE });
      expect(await process.exited).toEqual({ code: 0, signal: null });
    });

    test.skipIf(!can.pause)('SIGTERM while one is paused ends it cleanly', async () => {
      const { process, model } = await living.takeLoaded();
      const order = slowRequestFor(model, { ...under.slowRequest, requestId: 'paused' });
      const call = collect(process.generate(order), () => {
        void process.pause('paused').then(() => process.kill('SIGTERM'));
      });
      await expect(call).rejects.toMatchObject({ code: Code.UNAVAILABLE });
      expect(await process.exited).toEqual({ code: 0, signal: null });
    });

    test('it does not outlive its parent', async () => {
      const parent = spawn(process.execPath, ['--eval', 'process.stdin.resume()']); // any process of ours will do
      onTestFinished(() => void parent.kill('SIGKILL'));
      const orphan = await living.start({ env: { DMESH_ENGINE_PARENT_PID: String(parent.pid) } });
      parent.kill('SIGKILL');
      await orphan.exited;
    });
  });
}

/** The processes of one engine: a start takes seconds of a core, so what leaves one as it was shares it. */
class Living {
  readonly #under: EngineUnderTest;
  readonly #started: EngineProcess[] = [];
  #shared: Promise<LoadedEngine> | undefined;

  constructor(under: EngineUnderTest) {
    this.#under = under;
  }

  /** Ready to draw, for many tests. */
  async loaded(options: Partial<EngineStart> = {}): Promise<LoadedEngine> {
    this.#shared ??= this.#startLoaded(options);
    const { process, model } = await this.#shared;
    const { models } = await process.status();
    if (models.length === 0) await process.load(this.#under.modelDir); // a test failed half-way
    return { process, model };
  }

  /** For a test after which nobody can use it. */
  async takeLoaded(): Promise<LoadedEngine> {
    const loaded = await this.loaded();
    this.#shared = undefined;
    return loaded;
  }

  async start(options: Partial<EngineStart> = {}): Promise<EngineProcess> {
    const process = await startEngine({ ...this.#under, ...options, env: { ...this.#under.env, ...options.env } });
    this.#started.push(process);
    return process;
  }

  async close(): Promise<void> {
    this.#shared = undefined;
    await Promise.all(this.#started.splice(0).map((process) => process.close()));
  }

  async #startLoaded(options: Partial<EngineStart>): Promise<LoadedEngine> {
    const process = await this.start(options);
    expect(await process.status()).toMatchObject({ state: engine.EngineState.EMPTY, models: [] });
    const { model = expect.fail('Load answered without a model') } = await process.load(this.#under.modelDir);
    return { process, model };
  }
}

interface LoadedEngine {
  readonly process: EngineProcess;
  readonly model: generation.Model;
}

/** As small as the model allows, with as many steps as it likes. */
function requestFor(model: generation.Model, changes: Partial<engine.EngineGenerateRequest>): engine.EngineGenerateRequest {
  const { steps = 0, guidanceScale = 0 } = model.defaults ?? {};
  const { width, height } = smallest(model);
  return {
    requestId: 'conformance',
    model: model.name,
    revision: '',
    prompt: PROMPT,
    negativePrompt: '',
    width,
    height,
    steps,
    guidanceScale,
    items: [item(model, 1n)],
    loras: [],
    ...changes,
  };
}

function slowRequestFor(model: generation.Model, changes: Partial<engine.EngineGenerateRequest>): engine.EngineGenerateRequest {
  const sides = { width: model.limits?.maxWidth ?? 0, height: model.limits?.maxHeight ?? 0 };
  return requestFor(model, { ...sides, steps: model.limits?.maxSteps ?? 0, items: [item(model, 1n, sides)], ...changes });
}

function smallest({ limits }: generation.Model): { width: number; height: number } {
  return { width: limits?.minWidth ?? 0, height: limits?.minHeight ?? 0 };
}

function item(model: generation.Model, seed: bigint, sides: { width: number; height: number } = smallest(model)): engine.EngineItem {
  const { elementCount } = latentShape(sides.width, sides.height);
  return { seed, latents: Buffer.from(torchNoise(seed, elementCount).buffer) };
}

/** `onFirst` is called once, when the first event is in. */
async function collect(events: AsyncIterable<engine.EngineGenerateEvent>, onFirst = () => {}): Promise<engine.EngineGenerateEvent[]> {
  const collected: engine.EngineGenerateEvent[] = [];
  for await (const event of events) if (collected.push(event) === 1) onFirst();
  return collected;
}

async function pictures(process: EngineProcess, request: engine.EngineGenerateRequest): Promise<engine.RgbImage[]> {
  const events = await collect(process.generate(request));
  return events.flatMap(({ event }) => (event?.$case === 'image' ? [event.value] : []));
}

function tell({ event }: engine.EngineGenerateEvent): string {
  if (event?.$case === 'step') return `step ${event.value.imageIndex} ${event.value.step}/${event.value.total}`;
  return event?.$case === 'image' ? `image ${event.value.imageIndex}` : (event?.$case ?? 'nothing');
}

function digest(image: engine.RgbImage | undefined): string {
  return createHash('sha256')
    .update(image?.data ?? '')
    .digest('hex');
}

/** Mean absolute difference of two pictures, in steps of 8 bits. */
function distance(a: Uint8Array, b: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += Math.abs((a[i] ?? 0) - (b[i] ?? 0));
  return sum / a.length;
}
