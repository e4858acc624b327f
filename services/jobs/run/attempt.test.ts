import { expect, test } from 'vitest';
import { generation } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { MemoryJobs, sampleJob, sampleResult } from '../../../test/support/memory-jobs.js';
import { parseBlobName, sha256Of } from '../blobs/blob-name.js';
import type { Job } from '../domain/job.js';
import { jobKey } from '../domain/record.js';
import type { JobsEvent } from '../events.js';
import { Attempt, type AttemptOptions } from './attempt.js';
import type { DrawOptions } from './routers.js';

const png = Buffer.from('a whole file');
type GenerateEvent = generation.GenerateEvent;

/** A router that says what the test wants it to, when it wants. */
class ScriptedRouter {
  readonly calls: { request: generation.GenerateRequest; options: DrawOptions }[] = [];
  readonly #said: (GenerateEvent | StatusError)[] = [];
  #wake = () => {};

  say(...events: (GenerateEvent | StatusError)[]): void {
    this.#said.push(...events);
    this.#wake();
  }

  async *draw(request: generation.GenerateRequest, options: DrawOptions): AsyncGenerator<GenerateEvent, void> {
    this.calls.push({ request, options });
    const { signal } = options;
    signal.addEventListener('abort', () => this.#wake());
    for (;;) {
      if (signal.aborted) throw StatusError.from(signal.reason);
      const next = this.#said.shift();
      if (next instanceof StatusError) throw next;
      if (next) yield next;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

const started = (nodeId = 'node-1', attempt = 1): GenerateEvent => ({
  event: { $case: 'started', value: generation.Started.fromPartial({ nodeId, attempt }) },
});
const step: GenerateEvent = { event: { $case: 'step', value: { step: 1, total: 8, imageIndex: 0 } } };
const picture: GenerateEvent[] = [
  {
    event: {
      $case: 'image',
      value: generation.ImageChunk.fromPartial({ data: png, totalBytes: BigInt(png.length), mimeType: 'image/png', seed: 7n }),
    },
  },
  { event: { $case: 'completed', value: generation.Completed.fromPartial({ imageCount: 1, executingMs: 40, used: { model: 'm' } }) } },
];
const unread: Pick<AttemptOptions['records'], 'changeJob' | 'jobAsTold'> = {
  changeJob: async () => ({ kind: 'missing' }),
  jobAsTold: () => undefined,
};
const refusal = (reason: string, code: Code = Code.UNAVAILABLE) =>
  new StatusError({ code, reason, message: `because of ${reason}`, retryDelayMs: 700 });

function world(job: Job = sampleJob(), options: Partial<AttemptOptions> = {}) {
  const clock = new ManualClock();
  const jobs = new MemoryJobs();
  const entry = jobs.add(job);
  const router = new ScriptedRouter();
  const blobs = new Map<string, Uint8Array>();
  const events: JobsEvent[] = [];
  const attempt = new Attempt(entry, {
    clock,
    wallNow: () => 50_000 + clock.now(),
    random: () => 0,
    emit: (event) => events.push(event),
    records: jobs,
    pictures: { put: async (name, bytes) => void blobs.set(name, bytes), delete: async (name) => void blobs.delete(name) },
    routers: router,
    worker: 'w1',
    retry: { retryCount: 3, retryDelayMs: 10_000 },
    whenLinked: async () => {},
    onQueued: () => {},
    onPhase: () => {},
    reached: async () => {},
    ...options,
  });
  return { attempt, blobs, clock, events, jobs, router, state: () => jobs.jobOf('j1').state };
}

test('a picture is stored before the record that names it', async () => {
  const { attempt, blobs, clock, events, jobs, router, state } = world();
  await clock.advance(0);
  expect(state().kind).toBe('queued');
  router.say({ event: { $case: 'queued', value: { position: 2, etaMs: 90 } } });
  await clock.advance(0);
  expect(state().kind).toBe('queued');
  router.say(started());
  await clock.advance(0);
  router.say(step);
  await clock.advance(0);
  expect(jobs.jobOf('j1')).toMatchObject({ attempt: 1, state: { kind: 'running', worker: 'w1', nodeId: 'node-1' } });
  router.say(...picture);
  expect(await attempt.ended).toEqual({ kind: 'over', executingMs: 40 });
  const after = state();
  if (after.kind !== 'succeeded') throw new Error(after.kind);
  const [image] = after.result.images;
  expect(image).toMatchObject({ mimeType: 'image/png', seed: 7n, sizeBytes: png.length, sha256: sha256Of(png) });
  expect([...blobs]).toEqual([[image?.blob, new Uint8Array(png)]]);
  expect(parseBlobName(image?.blob ?? '')).toMatchObject({ tenant: 'acme', jobId: 'j1', uid: 'uid-j1', attempt: 1, imageIndex: 0 });
  expect(events.map(({ type }) => type)).toEqual(['jobWaits', 'jobStepped', 'attemptEnded']);
});

test('the router is asked in the name of the tenant, under an id that tells the attempt', async () => {
  const { attempt, clock, router } = world(sampleJob({ attempt: 4, priority: 'high' }));
  await clock.advance(0);
  const [call] = router.calls;
  expect(call?.request).toMatchObject({ requestId: 'job:j1:5', prompt: 'a red circle', seed: 7n, priority: generation.Priority.HIGH });
  expect(call?.options).toMatchObject({ tenant: 'acme', routeKey: 'uid-j1', deadlineAt: 3_600_000 });
  attempt.stop();
  expect(await attempt.ended).toEqual({ kind: 'over', executingMs: 0 });
});

test('a job that is no more as the index had it is left alone', async () => {
  const { attempt, jobs, router } = world();
  jobs.force('j1', { kind: 'begun', worker: 'other', nodeId: 'n', atMs: 1 });
  expect(await attempt.ended).toEqual({ kind: 'over', executingMs: 0 });
  expect(router.calls).toEqual([]);
});

test('who finds it begun by another stops at once', async () => {
  const { attempt, clock, jobs, router } = world();
  await clock.advance(0);
  jobs.force('j1', { kind: 'begun', worker: 'other', nodeId: 'n', atMs: 1 });
  router.say(started());
  await attempt.ended;
  expect(router.calls[0]?.options.signal.aborted).toBe(true);
  expect(jobs.jobOf('j1')).toMatchObject({ attempt: 1, state: { worker: 'other' } });
});

test('an id that was deleted and used again is another job', async () => {
  const { attempt, blobs, clock, jobs, router, state } = world();
  await clock.advance(0);
  jobs.add(sampleJob({ uid: 'uid-new' }));
  router.say(started(), ...picture);
  await attempt.ended;
  expect(state().kind).toBe('queued');
  expect(blobs.size).toBe(0);
});

test('a picture that comes too late is dropped', async () => {
  const { attempt, blobs, clock, events, jobs, router, state } = world();
  router.say(started());
  await clock.advance(0);
  jobs.force('j1', { kind: 'setBack', counted: false, notBeforeMs: 0 });
  jobs.force('j1', { kind: 'begun', worker: 'other', nodeId: 'n', atMs: 1 });
  jobs.force('j1', { kind: 'succeeded', worker: 'other', attempt: 2, atMs: 2, result: sampleResult });
  router.say(...picture);
  await attempt.ended;
  expect(state()).toMatchObject({ result: sampleResult });
  expect(blobs.size).toBe(0);
  expect(events.at(-1)).toMatchObject({ outcome: 'lost' });
});

test('a result that was written without our hearing of it is ours all the same', async () => {
  const { attempt, blobs, clock, jobs, router, state } = world();
  router.say(started());
  await clock.advance(0);
  jobs.loseNextConfirmation = true;
  router.say(...picture);
  await clock.advance(0);
  await clock.advance(1000);
  expect(await attempt.ended).toEqual({ kind: 'over', executingMs: 40 });
  expect(state().kind).toBe('succeeded');
  expect(blobs.size).toBe(1);
});

test('while NATS is away the picture is drawn and kept, and recorded when it is back', async () => {
  const { attempt, clock, jobs, router, state } = world();
  await clock.advance(0);
  jobs.away = true;
  router.say(started(), ...picture);
  await clock.advance(60_000);
  expect(attempt.phase).toBe('keeping');
  expect(state().kind).toBe('queued');
  jobs.away = false;
  await clock.advance(5000);
  expect(await attempt.ended).toEqual({ kind: 'over', executingMs: 40 });
  expect(jobs.jobOf('j1')).toMatchObject({ attempt: 1, state: { kind: 'succeeded' } });
});

test('a store without room is asked again: the picture has cost a GPU', async () => {
  let full = true;
  const put = async () => {
    if (full) throw refusal(Reason.STORE_FULL, Code.RESOURCE_EXHAUSTED);
  };
  const { attempt, clock, router, state } = world(sampleJob(), { pictures: { put, delete: async () => {} } });
  router.say(started(), ...picture);
  await clock.advance(20_000);
  expect(state().kind).toBe('running');
  full = false;
  await clock.advance(5000);
  await attempt.ended;
  expect(state().kind).toBe('succeeded');
});

test('while NATS has no room for the record the picture is kept', async () => {
  let full = false;
  const jobs = new MemoryJobs();
  jobs.add(sampleJob());
  const changeJob: MemoryJobs['changeJob'] = async (...args) => {
    if (full) throw refusal(Reason.STORE_FULL, Code.RESOURCE_EXHAUSTED);
    return jobs.changeJob(...args);
  };
  const records = { changeJob, jobAsTold: () => undefined, readJob: (tenant: string, jobId: string) => jobs.readJob(tenant, jobId) };
  const { attempt, clock, router } = world(sampleJob(), { records });
  router.say(started());
  await clock.advance(0);
  full = true;
  router.say(...picture);
  await clock.advance(20_000);
  expect(attempt.phase).toBe('keeping');
  full = false;
  await clock.advance(5000);
  await attempt.ended;
  expect(jobs.jobOf('j1').state.kind).toBe('succeeded');
});

test('moved by the mesh, it is the same attempt on another node', async () => {
  const { clock, jobs, router } = world();
  router.say(started('node-1', 1), picture[0] as GenerateEvent, started('node-2', 2));
  await clock.advance(0);
  expect(jobs.jobOf('j1')).toMatchObject({ attempt: 1, state: { nodeId: 'node-2' } });
});

test('turned away before it began, its record says nothing of it', async () => {
  const { attempt, jobs, router } = world();
  router.say(refusal(Reason.QUEUE_FULL, Code.RESOURCE_EXHAUSTED));
  const failure = { code: Code.RESOURCE_EXHAUSTED, reason: 'QUEUE_FULL', message: 'because of QUEUE_FULL' };
  expect(await attempt.ended).toEqual({ kind: 'turnedAway', scope: 'class', leastMs: 700, failure });
  expect(jobs.jobOf('j1')).toEqual(sampleJob());
});

test('lost with its router it is set back, and that is not counted', async () => {
  const { attempt, clock, jobs, router } = world();
  router.say(started());
  await clock.advance(0);
  router.say(refusal(Reason.CONNECTION_LOST));
  expect(await attempt.ended).toEqual({ kind: 'over', executingMs: 0 });
  expect(jobs.jobOf('j1')).toMatchObject({ failedAttempts: 0, state: { kind: 'queued', notBeforeMs: 50_250 } });
});

test.each([
  [0, { failedAttempts: 1, state: { kind: 'queued', notBeforeMs: 60_000 } }],
  [2, { failedAttempts: 3, state: { kind: 'queued', notBeforeMs: 90_000 } }],
  [3, { failedAttempts: 3, state: { kind: 'failed', failure: { reason: Reason.ENGINE_CRASHED } } }],
])('after %i failures that counted, the next one', async (failedAttempts, after) => {
  const { attempt, clock, jobs, router } = world(sampleJob({ failedAttempts }));
  router.say(started());
  await clock.advance(0);
  router.say(refusal(Reason.ENGINE_CRASHED));
  await attempt.ended;
  expect(jobs.jobOf('j1')).toMatchObject(after);
});

test('a drawing that takes longer than any call may is counted; one that its job’s time cuts off is not', async () => {
  const { attempt, clock, jobs, router } = world();
  router.say(started());
  await clock.advance(0);
  router.say(refusal(Reason.DEADLINE, Code.DEADLINE_EXCEEDED));
  await attempt.ended;
  expect(jobs.jobOf('j1').failedAttempts).toBe(1);
  const short = world(sampleJob({ expiresAtMs: 50_000 }));
  short.router.say(started());
  await short.clock.advance(0);
  short.router.say(refusal(Reason.DEADLINE, Code.DEADLINE_EXCEEDED));
  await short.attempt.ended;
  expect(short.jobs.jobOf('j1').failedAttempts).toBe(0);
});

test('a request that is no good fails at once, begun or not', async () => {
  const { attempt, router, state } = world();
  router.say(refusal(Reason.BAD_REQUEST, Code.INVALID_ARGUMENT));
  await attempt.ended;
  expect(state()).toMatchObject({ kind: 'failed', failure: { code: Code.INVALID_ARGUMENT, reason: Reason.BAD_REQUEST } });
});

test('a failure is counted once, also when its recording was not confirmed', async () => {
  const { attempt, clock, jobs, router } = world();
  router.say(started());
  await clock.advance(0);
  jobs.loseNextConfirmation = true;
  router.say(refusal(Reason.ENGINE_CRASHED));
  await clock.advance(0);
  await clock.advance(1000);
  await attempt.ended;
  expect(jobs.jobOf('j1').failedAttempts).toBe(1);
});

test('leaving sets back what a node draws, and nothing else', async () => {
  const { attempt, clock, jobs, router } = world();
  router.say(started());
  await clock.advance(0);
  await attempt.leave();
  await attempt.ended;
  expect(jobs.jobOf('j1')).toMatchObject({ attempt: 1, failedAttempts: 0, state: { kind: 'queued', notBeforeMs: 0 } });
  expect(router.calls[0]?.options.signal.aborted).toBe(true);
});

test('a record that cannot be read keeps its own job back alone; without NATS all wait', async () => {
  const fails = (reason: string, code: Code) => {
    const { attempt } = world(sampleJob(), { records: { ...unread, readJob: async () => Promise.reject(refusal(reason, code)) } });
    return attempt.ended;
  };
  expect(await fails(Reason.RECORD_DAMAGED, Code.DATA_LOSS)).toMatchObject({ kind: 'turnedAway', scope: 'job' });
  expect(await fails(Reason.STORE_UNAVAILABLE, Code.UNAVAILABLE)).toMatchObject({ kind: 'turnedAway', scope: 'all' });
});

test.each<[string, (jobs: MemoryJobs) => void]>([
  ['cancelled', (jobs) => jobs.force('j1', { kind: 'cancelled', atMs: 5 })],
  ['begun by another', (jobs) => jobs.force('j1', { kind: 'begun', worker: 'w2', nodeId: 'node-9', atMs: 5 })],
  ['deleted and submitted again', (jobs) => jobs.add(sampleJob({ uid: 'another' }))],
])('begun with an old record of a job that was %s, it is lost, and nothing is left of it', async (_, happens) => {
  const jobs = new MemoryJobs();
  jobs.add(sampleJob());
  jobs.told.set(jobKey('acme', 'j1'), { job: sampleJob(), revision: 1 });
  happens(jobs);
  const now = jobs.jobOf('j1');
  const { attempt, blobs, clock, router } = world(sampleJob(), { records: jobs });
  router.say(started(), ...picture);
  await clock.advance(0);
  expect(await attempt.ended).toEqual({ kind: 'over', executingMs: 0 });
  expect(router.calls[0]?.options.signal.aborted).toBe(true);
  expect([jobs.jobOf('j1'), blobs.size]).toEqual([now, 0]);
});

test('cancelled, the call to the router ends', async () => {
  const { attempt, clock, jobs, router, state } = world();
  router.say(started());
  await clock.advance(0);
  jobs.force('j1', { kind: 'cancelled', atMs: 5 });
  attempt.stop();
  await attempt.ended;
  expect(router.calls[0]?.options.signal.aborted).toBe(true);
  expect(state().kind).toBe('cancelled');
});
