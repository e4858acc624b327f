import { expect, test, vi } from 'vitest';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { MemoryJobs, sampleJob, sampleResult } from '../../../test/support/memory-jobs.js';
import { UNTOLD } from '../domain/job.js';
import { Keeper } from './keeper.js';

const RETENTION_MS = 3_600_000;
const succeeded = { kind: 'succeeded', nodeId: 'n', startedAtMs: 1, endedAtMs: 5000, result: sampleResult } as const;

function world() {
  const underWay = { count: 0, most: 0 };
  const clock = new ManualClock();
  const jobs = new MemoryJobs();
  const blobs = new Set(['acme/other']);
  const owned = { all: true };
  const keeper = new Keeper({
    clock,
    wallNow: () => clock.now(),
    emit: () => {},
    records: {
      changeJob: async (tenant, jobId, decide) => {
        underWay.most = Math.max(underWay.most, ++underWay.count);
        const changed = jobs.changeJob(tenant, jobId, decide);
        await changed.finally(() => underWay.count--);
        return changed;
      },
      readBatch: (...asked) => jobs.readBatch(...asked),
      readJob: (...asked) => jobs.readJob(...asked),
      removeJob: (...asked) => jobs.removeJob(...asked),
    },
    pictures: { delete: async (name) => void blobs.delete(name) },
    index: jobs,
    isMine: () => owned.all,
    retentionMs: (tenant) => (tenant === 'acme' ? RETENTION_MS : 0),
  });
  jobs.onChange = (entry) => keeper.job(entry, owned.all);
  jobs.onRemoved = (key) => keeper.removed(key);
  return { keeper, clock, jobs, blobs, owned, underWay };
}
const has = (jobs: MemoryJobs) => [...jobs.entries()].map(({ jobId }) => jobId);

test('a job not drawn in its time expires, waiting or running', async () => {
  const { clock, jobs } = world();
  jobs.add(sampleJob({ jobId: 'waiting', expiresAtMs: 9000 }));
  jobs.add(sampleJob({ jobId: 'running', expiresAtMs: 9000, state: { kind: 'running', worker: 'w', nodeId: 'n', startedAtMs: 1 } }));
  await clock.advance(8999);
  expect(jobs.jobOf('waiting').state.kind).toBe('queued');
  await clock.advance(1);
  expect(jobs.jobOf('waiting').state).toEqual({ kind: 'expired', endedAtMs: 9000 });
  expect(jobs.jobOf('running').state).toEqual({ kind: 'expired', endedAtMs: 9000 });
});

test('one that has ended is forgotten after its tenant’s time, with its pictures', async () => {
  const { blobs, clock, jobs } = world();
  jobs.add(sampleJob({ state: succeeded }));
  jobs.add(sampleJob({ jobId: 'soon', tenant: 'other', state: { kind: 'cancelled', endedAtMs: 5000 } }));
  await clock.advance(5000);
  expect(has(jobs)).toEqual(['j1']);
  await clock.advance(RETENTION_MS - 1);
  expect([has(jobs), blobs.size]).toEqual([['j1'], 1]);
  await clock.advance(1);
  expect([has(jobs), blobs.size]).toEqual([[], 0]);
});

test('one whose webhook is still to be told is kept until it was', async () => {
  const { clock, jobs } = world();
  const webhook = { url: 'https://receiver.example/', ...UNTOLD, state: 'pending', eventId: 'e' } as const;
  jobs.add(sampleJob({ state: { kind: 'cancelled', endedAtMs: 5000 }, webhook }));
  await clock.advance(2 * RETENTION_MS);
  expect(has(jobs)).toEqual(['j1']);
  jobs.force('j1', { kind: 'told', eventId: 'e', webhook: { ...webhook, state: 'givenUp' } });
  await clock.advance(0);
  expect(has(jobs)).toEqual([]);
});

test('a job retried meanwhile is not forgotten', async () => {
  const { clock, jobs } = world();
  jobs.add(sampleJob({ state: { kind: 'cancelled', endedAtMs: 5000 } }));
  jobs.force('j1', { kind: 'retried', expiresAtMs: 10 * RETENTION_MS });
  await clock.advance(2 * RETENTION_MS);
  expect(jobs.jobOf('j1').state.kind).toBe('queued');
});

test('one of a batch that was never committed goes after ten minutes', async () => {
  const { clock, jobs } = world();
  jobs.held.add('j1');
  jobs.add(sampleJob({ submittedAtMs: 1000 }));
  await clock.advance(600_999);
  expect(has(jobs)).toEqual(['j1']);
  await clock.advance(1);
  expect(has(jobs)).toEqual([]);
});

test('one whose batch was committed while this replica heard nothing stays', async () => {
  const { clock, jobs } = world();
  jobs.held.add('j1');
  jobs.batchJobIds = ['j1'];
  jobs.add(sampleJob({ batchId: 'b', submittedAtMs: 1000 }));
  await clock.advance(700_000);
  expect(has(jobs)).toEqual(['j1']);
});

test('while NATS is away it is tried again', async () => {
  const { clock, jobs } = world();
  jobs.add(sampleJob({ expiresAtMs: 1000 }));
  jobs.away = true;
  await clock.advance(60_000);
  expect(jobs.jobOf('j1').state.kind).toBe('queued');
  jobs.away = false;
  await clock.advance(5000);
  expect(jobs.jobOf('j1').state.kind).toBe('expired');
});

test('what is another’s is that one’s to look after', async () => {
  const { clock, jobs, owned } = world();
  owned.all = false;
  jobs.add(sampleJob({ expiresAtMs: 1000 }));
  await clock.advance(60_000);
  expect(jobs.jobOf('j1').state.kind).toBe('queued');
  expect(clock.pendingCount).toBe(0);
});

test('a batch that expires at once is written off a few at a time', async () => {
  const { clock, jobs, underWay } = world();
  for (let index = 0; index < 300; index++) jobs.add(sampleJob({ jobId: `j${index}`, expiresAtMs: 1000 }));
  await clock.advance(1000);
  await vi.waitFor(() => expect([...jobs.entries()].filter(({ kind }) => kind === 'expired')).toHaveLength(300));
  expect(underWay.most).toBe(32);
});
