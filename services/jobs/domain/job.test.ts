import { expect, test } from 'vitest';
import { generation } from '#contracts';
import { Code } from '#core';
import { type Change, change, isEnded, type Job, type Result } from './job.js';
import { formatJob, jobKey, parseRecord } from './record.js';

const result: Result = {
  images: [{ blob: 'a/b', mimeType: 'image/png', width: 64, height: 64, seed: 2n ** 63n, sizeBytes: 9, sha256: 'ff' }],
  used: generation.UsedParameters.fromPartial({ model: 'm', seed: 7n }),
  executingMs: 12.5,
};
const failure = { code: Code.INTERNAL, reason: 'NAN_OUTPUT', message: 'numbers that are none' };
const queued: Job = {
  uid: 'u1',
  tenant: 'a.b',
  jobId: 'j',
  batchId: '',
  request: generation.GenerateRequest.fromPartial({ model: 'm', prompt: 'a red circle', seed: 7n, loras: [{ name: 'x', strength: 0 }] }),
  priority: 'low',
  submittedAtMs: 1000,
  expiresAtMs: 9000,
  round: 1,
  attempt: 0,
  failedAttempts: 0,
  state: { kind: 'queued', notBeforeMs: 0 },
  webhook: {
    url: 'https://example.com',
    state: 'waiting',
    eventId: '',
    attempts: 0,
    firstAttemptAtMs: 0,
    nextAttemptAtMs: 0,
    lastError: '',
  },
};
const begun = (worker = 'w1'): Change => ({ kind: 'begun', worker, nodeId: 'n', atMs: 2000 });
const succeeded = (attempt: number, worker = 'w1'): Change => ({ kind: 'succeeded', worker, attempt, atMs: 3000, result });
const after = (job: Job, ...changes: Change[]): Job =>
  changes.reduce((now, what) => change(now, what) ?? expect.fail(`${what.kind} refused in ${now.state.kind}`), job);

test('from accepted to told', () => {
  const done = after(queued, begun(), succeeded(1));
  expect(done).toMatchObject({ attempt: 1, state: { kind: 'succeeded', nodeId: 'n', startedAtMs: 2000, endedAtMs: 3000 } });
  expect(done.webhook).toMatchObject({ state: 'pending', eventId: 'u1-1', nextAttemptAtMs: 3000 });
  const webhook = { ...(done.webhook ?? expect.fail()), state: 'delivered' as const, attempts: 1 };
  expect(after(done, { kind: 'told', eventId: 'u1-1', webhook }).webhook?.state).toBe('delivered');
  expect(change(done, { kind: 'told', eventId: 'u1-0', webhook })).toBeUndefined();
});

test('only the attempt that runs may bring the result', () => {
  const setBack: Change = { kind: 'setBack', counted: false, notBeforeMs: 0 };
  const second = after(queued, begun('w1'), setBack, begun('w2'));
  expect(change(second, succeeded(1, 'w1'))).toBeUndefined();
  expect(change(second, succeeded(2, 'w1'))).toBeUndefined();
  expect(change(second, begun('w1'))).toBeUndefined();
  expect(after(second, succeeded(2, 'w2')).state.kind).toBe('succeeded');
});

test('the mesh may move it to another node within one attempt', () => {
  const moved = after(queued, begun(), { kind: 'begun', worker: 'w1', nodeId: 'other', atMs: 2500 });
  expect(moved).toMatchObject({ attempt: 1, state: { nodeId: 'other', startedAtMs: 2000 } });
});

test('what has ended changes only by a retry, and never when it succeeded', () => {
  const ends: Change[] = [
    { kind: 'failed', failure, atMs: 1 },
    { kind: 'cancelled', atMs: 1 },
    { kind: 'expired', atMs: 1 },
  ];
  const retried: Change = { kind: 'retried', expiresAtMs: 99_000 };
  for (const end of ends) {
    const over = after(queued, begun(), end);
    for (const what of [...ends, begun(), succeeded(1), { kind: 'setBack', counted: true, notBeforeMs: 0 } as const]) {
      expect(change(over, what)).toBeUndefined();
    }
    const again = after(over, retried);
    expect(again).toMatchObject({ round: 2, attempt: 1, failedAttempts: 0, expiresAtMs: 99_000, state: { kind: 'queued' } });
    expect(again.webhook).toMatchObject({ state: 'waiting', eventId: '' });
    expect(again.lastFailure).toEqual(end.kind === 'failed' ? failure : undefined);
  }
  expect(change(after(queued, begun(), succeeded(1)), retried)).toBeUndefined();
  expect(change(queued, retried)).toBeUndefined();
});

/** Negative, 0 or positive as `a` is earlier than, at the same point as, or later than `b` in the life of one job. */
function compareProgress(a: Job, b: Job): number {
  return a.round - b.round || a.attempt - b.attempt || phaseOf(a) - phaseOf(b);
}

function phaseOf({ state }: Job): number {
  return state.kind === 'running' ? 0 : state.kind === 'queued' ? 1 : 2;
}

test('progress only rises, whatever happens in whatever order', () => {
  const all: Change[] = [
    begun('w1'),
    begun('w2'),
    succeeded(1),
    succeeded(2, 'w2'),
    { kind: 'setBack', failure, counted: true, notBeforeMs: 5 },
    { kind: 'failed', failure, atMs: 1 },
    { kind: 'cancelled', atMs: 1 },
    { kind: 'expired', atMs: 1 },
    { kind: 'retried', expiresAtMs: 1 },
  ];
  const walk = (job: Job, depth: number): number => {
    if (depth === 0) return 1;
    let count = 0;
    for (const what of all) {
      const next = change(job, what);
      if (!next) continue;
      expect(compareProgress(next, job)).toBeGreaterThanOrEqual(0);
      if (isEnded(job)) expect(next.round).toBe(job.round + 1);
      count += walk(next, depth - 1);
    }
    return count;
  };
  expect(walk(queued, 6)).toBeGreaterThan(1000);
});

test('a record reads as it was written', () => {
  for (const job of [
    queued,
    after(queued, begun()),
    after(queued, begun(), succeeded(1)),
    after(queued, { kind: 'failed', failure, atMs: 4 }),
  ]) {
    expect(parseRecord(jobKey(job.tenant, job.jobId), formatJob(job))).toEqual({ kind: 'job', job });
  }
  expect(jobKey('a.b', 'j')).toBe('job.a=2Eb.j');
  expect(() => parseRecord('job.a.j', '{"some":"thing"}')).toThrow('expected a record');
  expect(() => parseRecord('job.a.j', 'garbage')).toThrow();
});

test('what lacks anything that is relied on is no record', () => {
  const key = jobKey(queued.tenant, queued.jobId);
  const done = after(queued, begun(), succeeded(1));
  const written = (job: Job, fields: object) => JSON.stringify({ ...JSON.parse(formatJob(job)), ...fields });
  const faulty = [
    'null',
    written(queued, { request: undefined }),
    written(queued, { state: { kind: 'weird' } }),
    written(queued, { state: { kind: 'queued' } }),
    written(queued, { priority: 'urgent' }),
    written(queued, { submittedAtMs: 'long ago' }),
    written(queued, { jobId: 'another' }),
    written(queued, { webhook: {} }),
    written(done, { state: { ...done.state, result: undefined } }),
    written(done, { state: { ...done.state, result: { images: [{}], used: {}, executingMs: 1 } } }),
  ];
  for (const text of faulty) expect(() => parseRecord(key, text), text).toThrow();
});
