import { expect, test } from 'vitest';
import { engine } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { CostEstimate } from '../domain/cost-estimate.js';
import type { Lease } from '../domain/slot.js';
import type { Drawable } from './engine-request.js';
import { Executor } from './executor.js';
import type { Supervisor } from './supervisor.js';

const drawable = (prompt: string): Drawable => ({
  requestId: prompt,
  model: 'm',
  revision: '1',
  prompt,
  negativePrompt: '',
  width: 64,
  height: 64,
  steps: 2,
  guidanceScale: 0,
  seed: 1n,
  imageCount: 1,
  loras: [],
});
const lease: Lease = { id: 1n, waitedMs: 0, expectEnd: () => {}, allowPause: () => {}, release: () => {} };
const never = new AbortController().signal;

/** An engine that draws until it is told to stop, and notes what it is to read ahead, with failures. */
function busyEngine(canPrepare: boolean) {
  const prepared: string[] = [];
  let begin = () => {};
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const connection = {
    prepare: async ({ prompt }: Drawable) => {
      prepared.push(prompt);
      throw new Error('it may fail: nobody minds');
    },
    generate: async function* (_: unknown, signal: AbortSignal): AsyncGenerator<engine.EngineGenerateEvent> {
      begin();
      await new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
      yield { event: undefined };
    },
    untilIdle: async () => {},
  };
  const supervisor = { engine: { connection, canPause: false, canPrepare, gone: never }, condemn: () => {}, suspect: () => {} };
  const executor = new Executor({
    clock: new ManualClock(),
    emit: () => {},
    supervisor: supervisor as unknown as Supervisor,
    estimate: new CostEstimate(),
    limits: { factor: 5, floorMs: 10_000, capMs: 120_000 },
    cancelGraceMs: 1000,
    stepTimeoutMs: 1000,
  });
  return { begun, executor, prepared };
}

test.each([
  [true, ['second']],
  [false, []],
])('the text of the next request is read ahead while another is drawn, and only by an engine that can (%s)', async (can, expected) => {
  const { begun, executor, prepared } = busyEngine(can);
  executor.prepare(drawable('first'), never); // nothing runs: its own call comes at once
  const leave = new AbortController();
  const order = engine.EngineGenerateRequest.fromPartial({ requestId: 'first' });
  const watch = {
    signal: leave.signal,
    deadlineAt: Number.POSITIVE_INFINITY,
    priority: 'normal',
    onStep: () => {},
    onImage: () => {},
  } as const;
  const running = executor.run({ drawable: drawable('first'), order, sizeRatio: 1 }, lease, watch);
  await begun;
  executor.prepare(drawable('second'), never);
  leave.abort(new StatusError({ code: Code.CANCELLED, reason: Reason.CANCELLED, message: 'enough' }));
  await expect(running).rejects.toMatchObject({ reason: Reason.CANCELLED });
  expect(prepared).toEqual(expected);
});
