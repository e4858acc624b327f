import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { engine } from '#contracts';
import { type HandlersOf, Server } from '#grpc';
import { modelMessage } from '#model-package';
import { systemClock } from '#runtime';
import { sampleBeat } from '../../../test/support/sample-beat.js';
import { CostEstimate } from '../domain/cost-estimate.js';
import type { NodeEvent } from '../events.js';
import { Catalogue } from './catalogue.js';
import { Supervisor } from './supervisor.js';

const cleanups: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A supervisor whose engine process only idles: this test answers on its socket, and holds canaries back when told. */
async function start() {
  const dir = await mkdtemp(path.join(tmpdir(), 'dmesh-s-'));
  cleanups.push(() => rm(dir, { recursive: true, force: true }));
  const socketPath = (startCount: number) => path.join(dir, `${startCount}.sock`);
  const events: NodeEvent[] = [];
  let canaryGate = Promise.resolve();
  const listen = async (startCount: number) => {
    const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20 });
    server.add(
      engine.EngineServiceService,
      quietEngine(() => canaryGate),
    );
    await server.listen(`unix:${socketPath(startCount)}`);
    cleanups.push(() => server.close());
  };
  const supervisor = new Supervisor({
    command: [process.execPath, '-e', 'setInterval(() => {}, 60000)'],
    env: () => process.env,
    socketPath,
    catalogue: new Catalogue({ dirs: [dir], loadedLimit: 1, emit: (event) => void events.push(event), onChange: () => {} }),
    clock: systemClock,
    random: () => 0.5,
    emit: (event) => {
      events.push(event);
      if (event.type === 'engineStarted') void listen(event.startCount);
    },
    estimate: new CostEstimate(),
    restart: { quickDelayMs: 1, slowDelayMs: 1, maxDelayMs: 1 },
    stableAfterMs: 60_000,
    startTimeoutMs: 5000,
    loadTimeoutMs: 5000,
    canaryTimeoutMs: 5000,
    stopGraceMs: 5000,
    canaryDigest: undefined,
    onChange: () => {},
  });
  supervisor.start();
  cleanups.push(() => supervisor.stop());
  const countOf = (type: NodeEvent['type']) => events.filter((event) => event.type === type).length;
  await expect.poll(() => supervisor.phase, { timeout: 5000 }).toBe('ready');
  /** Canaries wait until the function returned is called. */
  const holdCanaries = () => {
    let release = () => {};
    canaryGate = new Promise((resolve) => {
      release = resolve;
    });
    return () => release();
  };
  return { supervisor, countOf, holdCanaries };
}

function quietEngine(canaryGate: () => Promise<void>): HandlersOf<typeof engine.EngineServiceService> {
  const models = sampleBeat().models.map((info) => modelMessage(info, 1));
  return {
    load: async () => engine.LoadResponse.fromPartial({ model: models[0] ?? {} }),
    unload: async () => ({}),
    status: async () => engine.StatusResponse.fromPartial({ engine: 'quiet', version: '1', determinismClass: 'quiet/1', models }),
    generate: async ({ request: { width, height } }, out) => {
      await canaryGate();
      await out.write({ event: { $case: 'image', value: { imageIndex: 0, width, height, data: new Uint8Array(width * height * 3) } } });
      await out.write({ event: { $case: 'done', value: engine.EngineDone.fromPartial({}) } });
    },
    pause: async () => ({ paused: false }),
    continue: async () => ({ continued: false }),
    prepare: async () => ({ prepared: false }),
  };
}

function only<T>(value: T | undefined): T {
  return value ?? expect.fail('expected one, found none');
}

test('a reload asked for while a canary is drawn happens after it', async () => {
  const { supervisor, countOf, holdCanaries } = await start();
  const release = holdCanaries();
  supervisor.suspect(only(supervisor.engine), 'a doubtful picture');
  await new Promise(setImmediate); // the canary is under way
  expect(supervisor.phase).toBe('checking');
  supervisor.reload();
  release();
  await expect.poll(() => countOf('engineReady'), { timeout: 5000 }).toBe(2);
  expect(countOf('canaryDrawn')).toBe(3); // first life, the doubt, second life
  expect(countOf('engineLost')).toBe(0);
});

test('of a doubt and a reload in one turn, neither is lost', async () => {
  const { supervisor, countOf } = await start();
  supervisor.suspect(only(supervisor.engine), 'a doubtful picture');
  supervisor.reload();
  await expect.poll(() => countOf('engineReady'), { timeout: 5000 }).toBe(2);
  expect(countOf('canaryDrawn')).toBe(3);
});
