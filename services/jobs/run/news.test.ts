import { expect, test } from 'vitest';
import type { BusMessage } from '#bus';
import { Code } from '#core';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { MemoryJobs, sampleJob } from '../../../test/support/memory-jobs.js';
import { JobNews } from './news.js';
import { Waits } from './waits.js';

/** A NATS that gives everything back to whoever published it. */
function world() {
  const clock = new ManualClock();
  const jobs = new MemoryJobs();
  const published: { subject: string; text: string }[] = [];
  let deliver: (message: BusMessage) => void = () => {};
  const bus = {
    publish: (subject: string, payload: string | Uint8Array) => {
      const text = String(payload);
      published.push({ subject, text });
      deliver({ subject, data: Buffer.from(text), respond: () => false });
      return true;
    },
    subscribe: (_: string, handler: (message: BusMessage) => void) => {
      deliver = handler;
      return () => {
        deliver = () => {};
      };
    },
  };
  const waits = new Waits({ clock, wallNow: () => 0, ownerOf: () => 'a' });
  const news = new JobNews({ bus, clock, waits, index: jobs });
  news.start();
  const say = (text: string) => deliver({ subject: 'dmesh.v1.job.j1.event', data: Buffer.from(text), respond: () => false });
  return { clock, jobs, news, published, say, waits };
}
const running = { kind: 'running', worker: 'w', nodeId: 'n1', startedAtMs: 1 } as const;
const of = { tenant: 'acme', jobId: 'j1' };
const step = (number: number) => ({ attempt: 1, nodeId: 'n1', step: number, totalSteps: 8 });

test('a change is told on the subject of its job, by its owner alone', () => {
  const { jobs, news, published } = world();
  const entry = jobs.add(sampleJob({ attempt: 1, state: running }));
  news.changed(entry, false);
  expect(published).toEqual([]);
  news.changed(entry, true);
  expect(published[0]?.subject).toBe('dmesh.v1.job.j1.event');
  const told = { job_id: 'j1', tenant: 'acme', batch_id: '', state: 'RUNNING', revision: 1, attempt: 1, node_id: 'n1' };
  expect(JSON.parse(published[0]?.text ?? '')).toEqual(told);
});

test('steps are told a few times a second, and known everywhere until the job runs no more', async () => {
  const { clock, jobs, news, published } = world();
  const entry = jobs.add(sampleJob({ attempt: 1, state: running }));
  const heard: number[] = [];
  const forget = news.onStep(entry.key, ({ step }) => heard.push(step));
  for (let number = 1; number <= 8; number++) {
    news.stepped(of, step(number));
    await clock.advance(100);
  }
  expect(published).toHaveLength(3);
  expect(heard).toEqual([1, 4, 7]);
  expect(news.stepOf(entry.key)).toEqual(step(7));
  forget();
  jobs.force('j1', { kind: 'cancelled', atMs: 5 });
  news.changed(jobs.entryOf('j1'), true);
  expect(news.stepOf(entry.key)).toBeUndefined();
});

test('a job that waits at a router has a place in line there', () => {
  const { news, published } = world();
  news.waits(of, { position: 4, etaMs: 1234.5 });
  expect(JSON.parse(published[0]?.text ?? '')).toEqual({ job_id: 'j1', tenant: 'acme', state: 'QUEUED', position: 4, eta_ms: 1235 });
});

test('why a job was turned away is known everywhere until one like it goes further', () => {
  const { jobs, news, published, waits } = world();
  const [tried, other] = [jobs.add(sampleJob()), jobs.add(sampleJob({ jobId: 'j2' }))];
  const failure = { code: Code.UNAVAILABLE, reason: 'NO_NODES', message: 'x'.repeat(1000) };
  news.turnedAway(of, { failure, scope: 'model', nextAttemptAtMs: 5000 });
  const waitingFor = { ...failure, message: 'x'.repeat(500) };
  expect(JSON.parse(published[0]?.text ?? '')).toEqual({
    job_id: 'j1',
    tenant: 'acme',
    state: 'QUEUED',
    waiting_for: waitingFor,
    scope: 'model',
    next_attempt_at_ms: 5000,
  });
  expect(waits.of(other)).toEqual({ failure: waitingFor, nextAttemptAtMs: 5000 });
  jobs.force('j1', { kind: 'begun', worker: 'w', nodeId: 'n', atMs: 1 });
  news.changed(jobs.entryOf('j1'), false);
  expect(waits.of(other)).toBeUndefined();
  news.turnedAway({ tenant: 'acme', jobId: 'j1' }, { failure, scope: 'model', nextAttemptAtMs: 5000 }); // late: it runs
  expect(waits.of(tried)).toBeUndefined();
  const full = { ...failure, reason: 'QUEUE_FULL' };
  news.turnedAway({ tenant: 'acme', jobId: 'j2' }, { failure: full, scope: 'class', nextAttemptAtMs: 5000 });
  expect(waits.of(other)?.failure.reason).toBe('QUEUE_FULL');
  news.waits({ tenant: 'acme', jobId: 'j2' }, { position: 1, etaMs: 0 });
  expect(waits.of(other)).toBeUndefined();
});

test.each([
  { waiting_for: null },
  { waiting_for: { code: 14, reason: 'NO_NODES' } },
  { waiting_for: { code: 99, reason: 'NO_NODES', message: 'm' } },
  { scope: 'mesh' },
  { next_attempt_at_ms: -1 },
  { next_attempt_at_ms: 8.7e15 },
  { job_id: 'nobody' },
])('a reason of the wrong form is passed over: %j', (wrong) => {
  const { jobs, say, waits } = world();
  const entry = jobs.add(sampleJob());
  const failure = { code: 14, reason: 'NO_NODES', message: 'm' };
  const right = { job_id: 'j1', tenant: 'acme', waiting_for: failure, scope: 'job', next_attempt_at_ms: 1 };
  say(JSON.stringify({ ...right, ...wrong }));
  expect(waits.of(entry)).toBeUndefined();
  say(JSON.stringify(right));
  expect(waits.of(entry)).toBeDefined();
});

test('late steps and what is no step are passed over', () => {
  const { jobs, news, say } = world();
  const entry = jobs.add(sampleJob());
  say('{"job_id":"j1","tenant":"acme","attempt":1,"node_id":"n","step":3,"total_steps":8}');
  expect(news.stepOf(entry.key)).toBeUndefined();
  jobs.force('j1', { kind: 'begun', worker: 'w', nodeId: 'n', atMs: 1 });
  for (const text of [
    '"step": garbage',
    '{"step": 3}',
    '{"job_id":"j1","tenant":"acme","attempt":1,"node_id":5,"step":3,"total_steps":8}',
    ...[-1, 0.5, 2 ** 32, 1e300].map((step) =>
      JSON.stringify({ job_id: 'j1', tenant: 'acme', attempt: 1, node_id: 'n', step, total_steps: 8 }),
    ),
    'null',
  ])
    say(text);
  expect(news.stepOf(entry.key)).toBeUndefined();
});
