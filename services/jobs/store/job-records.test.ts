/** Records of jobs against a real nats-server, seen by two replicas. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Code, Reason } from '#core';
import { type JobsStore, queuedJob, startJobsStore } from '../../../test/support/jobs-store.js';
import type { Change } from '../domain/job.js';
import { jobKey } from '../domain/record.js';

let store: JobsStore;
beforeEach(async () => {
  store = await startJobsStore();
});
afterEach(() => store.stop());

const soon = { timeout: 8000, interval: 10 };
const begunBy = (worker: string): Change => ({ kind: 'begun', worker, nodeId: 'n', atMs: 1 });

test('one of many creates a job; of many who begin it, one does', async () => {
  const [a, b] = [await store.replica(), await store.replica()];
  const created = await Promise.all(
    Array.from({ length: 10 }, (_, n) => (n % 2 ? a : b).records.createJob(queuedJob('j', { uid: `u${n}` }))),
  );
  expect(created.filter((revision) => revision !== undefined)).toHaveLength(1);
  const begun = await Promise.all(
    Array.from({ length: 10 }, (_, n) =>
      (n % 2 ? a : b).records.changeJob('acme', 'j', ({ state }) => (state.kind === 'queued' ? begunBy(`w${n}`) : undefined)),
    ),
  );
  expect(begun.filter(({ kind }) => kind === 'changed')).toHaveLength(1);
  expect(begun.filter(({ kind }) => kind === 'refused')).toHaveLength(9);
  expect(await a.records.changeJob('other', 'j', () => begunBy('w'))).toEqual({ kind: 'missing' });
  const stored = await b.records.readJob('acme', 'j');
  expect(stored?.job).toMatchObject({ attempt: 1, state: { kind: 'running' } });
  await expect.poll(() => [a, b].map(({ index }) => index.job('acme', 'j')?.revision), soon).toEqual([stored?.revision, stored?.revision]);
  expect(await a.records.removeJob('acme', 'j', 1)).toBe(false);
  expect(await a.records.removeJob('acme', 'j', stored?.revision ?? 0)).toBe(true);
  expect(await a.records.readJob('acme', 'j')).toBeUndefined();
  await expect.poll(() => [a, b].map(({ index }) => index.get(jobKey('acme', 'j'))), soon).toEqual([undefined, undefined]);
});

test('a change decided on what was true is decided anew when it is not any more', async () => {
  const { records } = await store.replica();
  const revision = await records.createJob(queuedJob('j'));
  const stale = { job: queuedJob('j'), revision: revision ?? 0 };
  await records.changeJob('acme', 'j', () => begunBy('w1'), stale);
  const seen: string[] = [];
  const decide = ({ state }: { state: { kind: string } }): Change => {
    seen.push(state.kind);
    return { kind: 'cancelled', atMs: 2 };
  };
  expect(await records.changeJob('acme', 'j', decide, stale)).toMatchObject({
    kind: 'changed',
    job: { attempt: 1, state: { kind: 'cancelled' } },
  });
  expect(seen).toEqual(['queued', 'running']);
});

test('a killed NATS loses nothing that was confirmed, and every replica knows what happened meanwhile', async () => {
  const [a, b] = [await store.replica(), await store.replica()];
  const written = Promise.allSettled(Array.from({ length: 500 }, (_, n) => a.records.createJob(queuedJob(`j${n}`, { submittedAtMs: n }))));
  await expect.poll(() => b.index.counts.queued, soon).toBeGreaterThan(20);
  await store.nats.kill();
  const results = await written;
  const confirmed = results.flatMap(({ status }, n) => (status === 'fulfilled' ? [`j${n}`] : []));
  for (const result of results) if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: Code.UNAVAILABLE });
  await expect(a.records.readJob('acme', 'j0')).rejects.toMatchObject({ code: Code.UNAVAILABLE });
  await store.restartNats();
  await expect.poll(() => [a, b].map(({ records }) => records.state.kind), soon).toEqual(['following', 'following']);
  expect(confirmed.filter((id) => !a.index.job('acme', id) || !b.index.job('acme', id))).toEqual([]);
  expect(a.index.counts).toEqual(b.index.counts);
});

test('what is no record is passed over and told', async () => {
  const { bus, index, records } = await store.replica();
  bus.publish('$KV.dmesh_jobs.job.acme.bad', '{"half":');
  await records.createJob(queuedJob('good'));
  await expect.poll(() => index.job('acme', 'good')?.jobId, soon).toBe('good');
  expect(index.get(jobKey('acme', 'bad'))).toBeUndefined();
  const damaged = { code: Code.DATA_LOSS, reason: Reason.RECORD_DAMAGED };
  await expect(records.readJob('acme', 'bad')).rejects.toMatchObject(damaged);
  expect(await records.removeDamagedJob('acme', 'good')).toBe(false);
  bus.publish('$KV.dmesh_jobs.job.acme.good', 'garbage');
  await expect.poll(() => [index.job('acme', 'good'), index.counts.queued], soon).toEqual([undefined, 0]);
  await expect(records.changeJob('acme', 'good', () => begunBy('w'))).rejects.toMatchObject(damaged);
  expect(await records.removeDamagedJob('acme', 'good')).toBe(true);
  expect(await records.readJob('acme', 'good')).toBeUndefined();
});
