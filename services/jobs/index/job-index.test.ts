import { beforeEach, expect, test } from 'vitest';
import { generation } from '#contracts';
import type { Clock } from '#core';
import { queuedJob as job } from '../../../test/support/jobs-store.js';
import { type Change, change, type Job, type StateKind } from '../domain/job.js';
import { jobKey } from '../domain/record.js';
import { type JobChange, JobIndex } from './job-index.js';

let revision = 0;
let nowMs = 0;
let index: JobIndex;
let told: string[] = [];
const clock = { now: () => nowMs } as Clock;
beforeEach(() => {
  revision = 0;
  nowMs = 0;
  told = [];
  index = new JobIndex({ clock, onUnreadable: () => {} });
  index.onChange((what) => told.push(line(what)));
});

function line(what: JobChange): string {
  return what.kind === 'removed' ? `${what.entry.jobId} gone` : `${what.entry.jobId} ${what.before ?? 'new'} > ${what.entry.kind}`;
}

function put(one: Job): Job {
  index.listener.onJob({ job: one, revision: ++revision }, 500);
  return one;
}

function putChanged(one: Job, ...changes: Change[]): Job {
  return changes.reduce((now, what) => put(change(now, what) ?? expect.fail(what.kind)), one);
}

const begun: Change = { kind: 'begun', worker: 'w/1', nodeId: 'n', atMs: 1000 };
const image = { blob: 'b', mimeType: 'image/png', width: 64, height: 64, seed: 1n, sizeBytes: 1000, sha256: 'ff' };
const succeeded: Change = {
  kind: 'succeeded',
  worker: 'w/1',
  attempt: 1,
  atMs: 1500,
  result: { images: [image, image], used: generation.UsedParameters.fromPartial({}), executingMs: 400 },
};
const ids = (entries: Iterable<{ jobId: string }>) => [...entries].map(({ jobId }) => jobId);
const all = { tenant: 'acme', states: new Set<StateKind>(), batchId: '', submittedFromMs: 0, submittedToMs: Number.POSITIVE_INFINITY };
const jobsFrom = (from: number, count: number) =>
  Array.from({ length: count }, (_, n) => job(`j${from + n}`, { submittedAtMs: 1000 + from + n }));

test('counts, bounds and states follow every change, and nothing is left of what was removed', () => {
  const one = put(job('one'));
  put(job('two', { tenant: 'other' }));
  expect([index.waitingCount('acme'), index.waitingCount('other'), index.counts.queued]).toEqual([1, 1, 2]);
  putChanged(one, begun);
  expect(index.job('acme', 'one')).toMatchObject({ kind: 'running', worker: 'w/1', attempt: 1 });
  expect([index.waitingCount('acme'), index.counts.running]).toEqual([0, 1]);
  putChanged(change(one, begun) ?? one, succeeded);
  expect([index.tenantStoredBytes('acme'), index.storedBytes, index.counts.succeeded]).toEqual([2000, 2000, 1]);
  for (const id of ['one', 'two']) index.listener.onRemoved(jobKey(id === 'one' ? 'acme' : 'other', id));
  expect(Object.values(index.counts)).toEqual([0, 0, 0, 0, 0, 0]);
  expect([index.storedBytes, index.recordBytes, ids(index.entries()), index.oldestWaiting()]).toEqual([0, 0, [], undefined]);
  expect(told).toEqual(['one new > queued', 'two new > queued', 'one queued > running', 'one running > succeeded', 'one gone', 'two gone']);
});

test('lists are newest first, by state, batch and time; pages stay as they were while new ones come', () => {
  for (const one of jobsFrom(0, 50).sort(() => 0.5 - ((revision * 7919) % 10) / 10)) put(one);
  const first = index.list(all, 20);
  expect(ids(first).slice(0, 3)).toEqual(['j49', 'j48', 'j47']);
  for (const one of jobsFrom(50, 10)) put(one);
  const second = index.list(all, 20, first.at(-1));
  expect(ids(second)).toEqual(Array.from({ length: 20 }, (_, n) => `j${29 - n}`));
  index.listener.onRemoved(jobKey('acme', 'j10')); // the place of a page may be gone meanwhile
  expect(ids(index.list(all, 100, { submittedAtMs: 1010, tenant: 'acme', jobId: 'j10' }))[0]).toBe('j9');
  putChanged(job('j5', { submittedAtMs: 1005 }), { kind: 'failed', failure: { code: 13, reason: 'X', message: '' }, atMs: 5 });
  expect(ids(index.list({ ...all, states: new Set(['failed']) }, 10))).toEqual(['j5']);
  expect(ids(index.list({ ...all, submittedFromMs: 1020, submittedToMs: 1023 }, 10))).toEqual(['j22', 'j21', 'j20']);
  expect(ids(index.list({ ...all, submittedToMs: 1003 }, 10, second.at(-1)))).toEqual(['j2', 'j1', 'j0']);
  expect(ids(index.list({ ...all, tenant: 'nobody' }, 10))).toEqual([]);
  expect(new Set(ids(index.list(all, 1000))).size).toBe(59);
});

test('a position is by class, then by age', () => {
  put(job('old', { submittedAtMs: 1 }));
  put(job('young', { submittedAtMs: 3 }));
  put(job('urgent', { submittedAtMs: 9, priority: 'high' }));
  put(job('middle', { submittedAtMs: 2, tenant: 'other' }));
  const positions = () => [...index.entries()].filter(({ kind }) => kind === 'queued').map((entry) => [entry.jobId, index.position(entry)]);
  expect(Object.fromEntries(positions())).toEqual({ urgent: 1, old: 2, middle: 3, young: 4 });
  putChanged(job('old', { submittedAtMs: 1 }), begun);
  expect(Object.fromEntries(positions())).toEqual({ urgent: 1, middle: 2, young: 3 });
  expect(index.oldestWaiting()?.jobId).toBe('middle');
});

test('a batch is there all at once, with its record, whichever is read first', () => {
  const inBatch = (id: string) => job(id, { batchId: 'b' });
  put(inBatch('b-0'));
  put(inBatch('b-1'));
  put(inBatch('stray'));
  expect([index.job('acme', 'b-0'), index.batch('acme', 'b'), index.waitingCount('acme')]).toEqual([undefined, undefined, 0]);
  expect([...index.entries()].every((entry) => index.isHeld(entry))).toBe(true);
  told = [];
  const batch = { tenant: 'acme', batchId: 'b', submittedAtMs: 1000, jobIds: ['b-0', 'b-1', 'b-2'], digest: 'd' };
  index.listener.onBatch({ batch, revision: ++revision }, 100);
  expect(told).toEqual(['b-0 new > queued', 'b-1 new > queued']);
  expect(index.waitingCount('acme')).toBe(2);
  expect(index.job('acme', 'stray')).toBeUndefined();
  put(inBatch('b-2'));
  expect(ids(index.list({ ...all, batchId: 'b' }, 10))).toEqual(['b-2', 'b-1', 'b-0']);
  for (const id of ['b-0', 'b-1', 'b-2', 'stray']) index.listener.onRemoved(jobKey('acme', id));
  index.listener.onRemoved('batch.acme.b');
  expect([[...index.batches()], index.counts.queued, index.recordBytes]).toEqual([[], 0, 0]);
});

test('a batch that was made anew under its name while nobody looked takes its old jobs out of sight', () => {
  const batch = { tenant: 'acme', batchId: 'b', submittedAtMs: 1000, digest: 'd' };
  put(job('old', { batchId: 'b' }));
  index.listener.onBatch({ batch: { ...batch, jobIds: ['old'] }, revision: ++revision }, 100);
  put(job('new', { batchId: 'b' }));
  index.listener.onBatch({ batch: { ...batch, jobIds: ['new'] }, revision: ++revision }, 100);
  expect([index.job('acme', 'old'), index.waitingCount('acme'), told.at(-2), told.at(-1)]).toEqual([
    undefined,
    1,
    'old queued > queued',
    'new new > queued',
  ]);
  index.listener.onRemoved('job.acme.old');
  expect([ids(index.list(all, 10)), index.counts.queued]).toEqual([['new'], 1]);
});

test('how long it takes is known once some have ended, and grows when none end any more', () => {
  const waiting = put(job('waiting', { submittedAtMs: 5000 }));
  const eta = () => index.etaMs(index.job('acme', 'waiting') ?? expect.fail(), 2000);
  index.listener.onState({ kind: 'following' });
  for (const one of jobsFrom(0, 11)) {
    nowMs += 500;
    putChanged(put(one), begun, succeeded);
  }
  expect(index.position(index.get(jobKey('acme', waiting.jobId)) ?? expect.fail())).toBe(1);
  expect(eta()).toBe(500);
  nowMs += 5000;
  expect(eta()).toBe(1000);
  putChanged(waiting, { ...begun, atMs: 2000 });
  expect([2000, 2300, 9000].map((now) => index.etaMs(index.job('acme', 'waiting') ?? expect.fail(), now))).toEqual([500, 200, 0]);
  nowMs += 3_600_000;
  put(job('next', { submittedAtMs: 6000 }));
  expect(index.etaMs(index.job('acme', 'next') ?? expect.fail(), 0)).toBe(0);
});

test('an id used again after a removal that was missed is another job', () => {
  put(job('j', { submittedAtMs: 1 }));
  put(job('j', { uid: 'other', submittedAtMs: 2 }));
  expect(told).toEqual(['j new > queued', 'j gone', 'j new > queued']);
  expect(index.list(all, 10)).toHaveLength(1);
});

test('a watcher hears of its job alone', () => {
  const heard: string[] = [];
  const end = index.watch(jobKey('acme', 'b'), (what) => heard.push(line(what)));
  put(job('a'));
  putChanged(put(job('b')), begun);
  end();
  putChanged(job('b'), { kind: 'cancelled', atMs: 1 });
  expect(heard).toEqual(['b new > queued', 'b queued > running']);
});
