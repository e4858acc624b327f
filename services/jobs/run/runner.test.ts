import { expect, test } from 'vitest';
import { Code } from '#core';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { MemoryJobs, sampleJob } from '../../../test/support/memory-jobs.js';
import type { Scope } from '../domain/failures.js';
import type { Job } from '../domain/job.js';
import type { JobsEvent } from '../events.js';
import type { JobEntry } from '../index/job-entry.js';
import type { Attempt, AttemptEnd, AttemptListener } from './attempt.js';
import { Runner } from './runner.js';

/** An attempt that goes as far as the test moves it. */
class HeldAttempt {
  phase: Attempt['phase'] = 'handed';
  begun = false;
  stopped = false;
  left = false;
  readonly ended: Promise<AttemptEnd>;
  #end: (end: AttemptEnd) => void = () => {};

  constructor(
    readonly entry: JobEntry,
    private readonly told: AttemptListener,
  ) {
    this.ended = new Promise((resolve) => (this.#end = resolve));
  }

  become(phase: 'drawing' | 'keeping'): void {
    this.phase = phase;
    this.told.onPhase();
  }

  queue(): void {
    this.told.onQueued();
  }

  stop(): void {
    this.stopped = true;
    this.end({ kind: 'over', executingMs: 0 });
  }

  async leave(): Promise<void> {
    this.left = true;
    this.stop();
  }

  end(end: AttemptEnd = { kind: 'over', executingMs: 10 }): void {
    this.#end(end);
  }
}

const failure = { code: Code.UNAVAILABLE, reason: 'NO_NODES', message: 'nobody' };
const turnedAway = (scope: Scope, leastMs?: number): AttemptEnd => ({ kind: 'turnedAway', scope, leastMs, failure });

function world({ slots = 0 } = {}) {
  const clock = new ManualClock();
  const jobs = new MemoryJobs();
  const attempts: HeldAttempt[] = [];
  const events: JobsEvent[] = [];
  const state = { linked: true, slots, mine: new Set<string>(), alive: new Set(['w1']), all: true };
  const isMine = (key: string) => state.all || state.mine.has(key);
  const runner = new Runner({
    clock,
    wallNow: () => clock.now(),
    random: () => 0,
    emit: (event) => events.push(event),
    records: jobs,
    worker: 'w1',
    isAlive: (worker) => state.alive.has(worker),
    isMine,
    index: jobs,
    attempt: (entry, told) => {
      const attempt = new HeldAttempt(entry, told);
      attempts.push(attempt);
      return attempt as unknown as Attempt;
    },
    mayStart: () => state.linked,
    slotCount: () => state.slots,
    shares: { high: 0.6, normal: 0.3, low: 0.1 },
  });
  jobs.onChange = (entry) => runner.job(entry, isMine(entry.key));
  jobs.onRemoved = (key) => runner.removed(key);
  const add = (jobId: string, fields: Partial<Job> = {}) => jobs.add(sampleJob({ jobId, ...fields }));
  const started = () => attempts.map(({ entry }) => entry.jobId);
  const of = (jobId: string) => attempts.findLast(({ entry }) => entry.jobId === jobId) ?? expect.fail(`${jobId} was not started`);
  return { runner, clock, jobs, attempts, events, state, add, started, of };
}

/** One slot assumed where none is known, and four ahead. */
const WINDOW = 5;

test('no more is handed over than the mesh can soon draw; a slot that frees takes the next', async () => {
  const { add, clock, jobs, of, started } = world();
  for (let index = 0; index < 20; index++) add(`j${index}`, { submittedAtMs: index });
  expect(started()).toEqual(['j0', 'j1', 'j2', 'j3', 'j4']);
  of('j0').become('drawing');
  expect(started()).toHaveLength(WINDOW);
  of('j0').become('keeping');
  expect(started().slice(WINDOW)).toEqual(['j5']);
  jobs.force('j1', { kind: 'cancelled', atMs: 1 });
  await clock.advance(0);
  expect(started().slice(WINDOW)).toEqual(['j5', 'j6']);
});

test('a slow store stops the drawing', () => {
  const { add, attempts } = world();
  for (let index = 0; index < 100; index++) add(`j${index}`);
  for (let index = 0; index < attempts.length; index++) attempts[index]?.become('keeping');
  expect(attempts).toHaveLength(WINDOW + 16 + WINDOW - 1);
});

test('class first, then tenants in turn, then the oldest', async () => {
  const { add, clock, runner, started, state } = world();
  state.linked = false;
  add('low-1', { submittedAtMs: 1 });
  for (const index of [2, 3, 4]) add(`a-${index}`, { priority: 'high', tenant: 'a', submittedAtMs: index });
  add('b-5', { priority: 'high', tenant: 'b', submittedAtMs: 5 });
  expect(started()).toEqual([]);
  state.linked = true;
  runner.wake();
  await clock.advance(0);
  expect(started()).toEqual(['a-2', 'b-5', 'a-3', 'a-4', 'low-1']);
});

test('what is held, is not ours, runs elsewhere or has ended is left alone', () => {
  const { add, jobs, started, state } = world();
  jobs.held.add('held');
  add('held');
  state.alive.add('w2');
  add('running', { state: { kind: 'running', worker: 'w2', nodeId: 'n', startedAtMs: 1 } });
  add('over', { state: { kind: 'cancelled', endedAtMs: 1 } });
  state.all = false;
  add('foreign');
  expect(started()).toEqual([]);
});

test('after a failure it waits for its time', async () => {
  const { add, clock, started } = world();
  add('j1', { state: { kind: 'queued', notBeforeMs: 10_000 } });
  await clock.advance(9999);
  expect(started()).toEqual([]);
  await clock.advance(1);
  expect(started()).toEqual(['j1']);
});

test('turned away for its model, others of that model wait and the rest goes on; one finds out whether it is over', async () => {
  const { add, clock, of, started } = world();
  add('x1', { request: { ...sampleJob().request, model: 'x' } });
  of('x1').end(turnedAway('model', 2000));
  await clock.advance(0);
  add('x2', { request: { ...sampleJob().request, model: 'x' } });
  add('m1');
  expect(started()).toEqual(['x1', 'm1']);
  await clock.advance(1999);
  expect(started()).toEqual(['x1', 'm1']);
  await clock.advance(1);
  expect(started()).toEqual(['x1', 'm1', 'x1']);
  of('x1').become('drawing');
  expect(started()).toEqual(['x1', 'm1', 'x1', 'x2']);
});

test('turned away for itself alone, only that job waits, longer each time', async () => {
  const { add, clock, of, started } = world();
  add('j1');
  of('j1').end(turnedAway('job'));
  await clock.advance(0);
  add('j2');
  expect(started()).toEqual(['j1', 'j2']);
  await clock.advance(250);
  expect(started()).toEqual(['j1', 'j2', 'j1']);
  of('j1').end(turnedAway('job'));
  await clock.advance(499);
  expect(started()).toHaveLength(3);
  await clock.advance(1);
  expect(started()).toHaveLength(4);
});

test('why jobs wait is told once for all that were turned away together, and anew at each try', async () => {
  const { add, clock, events, of } = world();
  for (const jobId of ['j1', 'j2', 'j3']) add(jobId);
  for (const jobId of ['j1', 'j2']) of(jobId).end(turnedAway('model', 2000));
  of('j3').end(turnedAway('job', 9000));
  await clock.advance(0);
  const told = { type: 'jobTurnedAway', tenant: 'acme', failure };
  expect(events).toEqual([
    { ...told, jobId: 'j1', scope: 'model', nextAttemptAtMs: 2000 },
    { ...told, jobId: 'j3', scope: 'job', nextAttemptAtMs: 9000 },
  ]);
  await clock.advance(2000);
  of('j1').end(turnedAway('model', 0));
  await clock.advance(0);
  expect(events.slice(2)).toEqual([{ ...told, jobId: 'j1', scope: 'model', nextAttemptAtMs: 2500 }]);
});

test('the first after a router’s death may wait for a busy model: those of other models do not wait with it', async () => {
  const { add, clock, of, started } = world();
  add('x1', { request: { ...sampleJob().request, model: 'x' } });
  of('x1').end(turnedAway('all'));
  await clock.advance(0);
  add('m1');
  await clock.advance(250);
  expect(started()).toEqual(['x1', 'x1']);
  of('x1').queue();
  expect(started()).toEqual(['x1', 'x1', 'm1']);
});

test('a new node opens the way at once', async () => {
  const { add, clock, of, runner, started } = world();
  add('j1');
  of('j1').end(turnedAway('model', 60_000));
  await clock.advance(0);
  runner.wake();
  expect(started()).toEqual(['j1', 'j1']);
});

test('while NATS is away nothing is started', async () => {
  const { add, clock, runner, started, state } = world();
  state.linked = false;
  add('j1');
  await clock.advance(60_000);
  expect(started()).toEqual([]);
  state.linked = true;
  runner.wake();
  expect(started()).toEqual(['j1']);
});

test('an attempt ends when its job has ended, is gone, or runs elsewhere', () => {
  const { add, jobs, of } = world();
  for (const jobId of ['cancelled', 'elsewhere', 'gone']) add(jobId);
  jobs.force('cancelled', { kind: 'cancelled', atMs: 1 });
  expect(of('cancelled').stopped).toBe(true);
  jobs.force('elsewhere', { kind: 'begun', worker: 'w2', nodeId: 'n', atMs: 1 });
  expect(of('elsewhere').stopped).toBe(true);
  jobs.onRemoved(jobs.entryOf('gone').key);
  expect(of('gone').stopped).toBe(true);
});

test('a job that is another’s now is let go unless a node draws it', () => {
  const { add, of, runner, state } = world();
  const waiting = add('waiting');
  const drawn = add('drawn');
  of('drawn').become('drawing');
  state.all = false;
  runner.job(waiting, false);
  runner.job(drawn, false);
  expect(of('waiting').stopped).toBe(true);
  expect(of('drawn').stopped).toBe(false);
});

test('what a dead worker left is taken back and run', async () => {
  const { add, clock, jobs, started, state } = world();
  state.alive.add('w2');
  const left = { kind: 'running', worker: 'w2', nodeId: 'n', startedAtMs: 1 } as const;
  add('j1', { attempt: 1, state: left });
  await clock.advance(0);
  expect(jobs.jobOf('j1').state.kind).toBe('running');
  state.alive.delete('w2');
  jobs.onChange(jobs.entryOf('j1'));
  await clock.advance(0);
  expect(jobs.jobOf('j1')).toMatchObject({ attempt: 1, failedAttempts: 0, state: { kind: 'queued' } });
  expect(started()).toEqual(['j1']);
});

test('what this replica is said to run and does not is taken back, as soon as NATS takes it', async () => {
  const { add, clock, jobs, started } = world();
  jobs.away = true;
  add('j1', { state: { kind: 'running', worker: 'w1', nodeId: 'n', startedAtMs: 1 } });
  await clock.advance(500);
  jobs.away = false;
  await clock.advance(500);
  expect(started()).toEqual(['j1']);
});

test('what it is said to run and does not is taken back also when it is another’s by now', async () => {
  const { add, clock, jobs, state } = world();
  state.all = false;
  add('j1', { attempt: 1, state: { kind: 'running', worker: 'w1', nodeId: 'n', startedAtMs: 1 } });
  await clock.advance(0);
  expect(jobs.jobOf('j1').state.kind).toBe('queued');
});

test('draining lets go of what waits at a router and waits for what is drawn', async () => {
  const { add, clock, of, runner, started } = world();
  add('waiting');
  add('drawn');
  of('drawn').become('drawing');
  let drained = false;
  void runner.drain().then(() => {
    drained = true;
  });
  await clock.advance(0);
  expect(of('waiting').stopped).toBe(true);
  expect(drained).toBe(false);
  of('drawn').end();
  add('late');
  await clock.advance(0);
  expect(drained).toBe(true);
  expect(started()).toEqual(['waiting', 'drawn']);
});

test('closing leaves what is not finished to others', async () => {
  const { add, clock, of, runner } = world();
  add('drawn');
  of('drawn').become('drawing');
  await runner.close();
  expect(of('drawn').left).toBe(true);
  await clock.advance(60_000);
  expect(clock.pendingCount).toBe(0);
});
