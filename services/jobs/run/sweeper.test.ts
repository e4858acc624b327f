import { expect, test } from 'vitest';
import { Code, Reason, StatusError } from '#core';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { MemoryJobs, sampleJob, sampleResult } from '../../../test/support/memory-jobs.js';
import { blobName, parseBlobName } from '../blobs/blob-name.js';
import type { SweepOptions } from '../blobs/sweep.js';
import type { Job } from '../domain/job.js';
import type { BatchEntry } from '../index/job-index.js';
import { recordDamaged } from '../refusals.js';
import { Sweeper } from './sweeper.js';

const HOUR_MS = 3_600_000;
const figures = { liveCount: 0, liveBytes: 0, archivedCount: 0, archivedBytes: 0 };
const done = { orphanCount: 0, movedCount: 0, temporaryCount: 0, damagedCount: 0, failedCount: 0 };
const blobOf = (attempt: number, uid = 'uid-j1') =>
  blobName({ tenant: 'acme', jobId: 'j1', uid, attempt, imageIndex: 0, sha256: 'f'.repeat(64), mimeType: 'image/png' });

function world(job?: Job, readJob?: MemoryJobs['readJob']) {
  const clock = new ManualClock();
  const jobs = new MemoryJobs();
  if (job) jobs.add(job);
  const sweeps: SweepOptions[] = [];
  const removed: string[] = [];
  const state = { maySweep: true, batches: [] as BatchEntry[] };
  const sweeper = new Sweeper({
    clock,
    wallNow: () => clock.now(),
    random: () => 0.5,
    emit: () => {},
    blobs: {
      sweep: async (options) => {
        sweeps.push(options);
        return { ...figures, ...done };
      },
    },
    records: {
      readJob: readJob ?? ((tenant, jobId) => jobs.readJob(tenant, jobId)),
      removeBatch: async (_, batchId) => {
        removed.push(batchId);
        return true;
      },
    },
    index: { batches: () => state.batches },
    everyMs: HOUR_MS,
    maySweep: () => state.maySweep,
    isMine: (text) => !text.includes('foreign'),
  });
  sweeper.start();
  return { clock, removed, state, sweeper, sweeps };
}

async function isNamed(job: Job | undefined, name: string, readJob?: MemoryJobs['readJob']): Promise<boolean> {
  const { clock, sweeps } = world(job, readJob);
  await clock.advance(HOUR_MS);
  const parts = parseBlobName(name);
  if (!parts) throw new Error(name);
  return sweeps[0]?.isNamed({ name, parts, sizeBytes: 1, storedAtMs: 0 }) ?? expect.fail('no sweep');
}
const named = { ...sampleResult, images: sampleResult.images.map((image) => ({ ...image, blob: blobOf(2) })) };
const succeeded = { kind: 'succeeded', nodeId: 'n', startedAtMs: 1, endedAtMs: 2, result: named } as const;
const running = { kind: 'running', worker: 'w', nodeId: 'n', startedAtMs: 1 } as const;

test.each([
  ['of the result', sampleJob({ attempt: 2, state: succeeded }), blobOf(2), true],
  ['of an attempt that lost', sampleJob({ attempt: 2, state: succeeded }), blobOf(1), false],
  ['of the attempt that runs', sampleJob({ attempt: 2, state: running }), blobOf(2), true],
  ['of one before it', sampleJob({ attempt: 2, state: running }), blobOf(1), false],
  ['of a job that waits anew', sampleJob({ attempt: 2 }), blobOf(2), false],
  ['of an earlier job with that id', sampleJob({ attempt: 2, state: succeeded }), blobOf(2, 'uid-old'), false],
  ['of no job', undefined, blobOf(1), false],
])('a picture %s', async (_, job, name, expected) => {
  expect(await isNamed(job, name)).toBe(expected);
});

test('a record that cannot be read keeps its pictures and stops nothing; NATS that is away ends the sweep', async () => {
  const failing = (error: Error) => () => Promise.reject(error);
  expect(await isNamed(undefined, blobOf(1), failing(recordDamaged('job.acme.j1', new SyntaxError('no JSON'))))).toBe(true);
  const away = new StatusError({ code: Code.UNAVAILABLE, reason: Reason.STORE_UNAVAILABLE, message: 'away' });
  await expect(isNamed(undefined, blobOf(1), failing(away))).rejects.toBe(away);
});

test('nothing is looked at while it is not known who lives or what there is', async () => {
  const { clock, state, sweeper, sweeps } = world();
  state.maySweep = false;
  await clock.advance(3 * HOUR_MS);
  expect(sweeps).toEqual([]);
  state.maySweep = true;
  await clock.advance(HOUR_MS);
  expect(sweeps).toHaveLength(1);
  sweeper.stop();
  expect(clock.pendingCount).toBe(0);
});

test('a batch of which no job is left is forgotten, not a fresh one and not another’s', async () => {
  const { clock, removed, state } = world();
  const batch = (batchId: string, submittedAtMs: number): BatchEntry => {
    const committed = { tenant: 'acme', batchId, submittedAtMs, digest: '', revision: 1, jobIds: new Set<string>() };
    return { tenant: 'acme', batchId, committed, jobs: new Set() };
  };
  state.batches = [batch('empty', 0), batch('fresh', HOUR_MS / 2 - 1000), batch('foreign', 0)];
  await clock.advance(HOUR_MS / 2);
  expect(removed).toEqual(['empty']);
});
