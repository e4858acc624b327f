/** What can be asked of jobs and done to them, at two replicas with a real NATS. */
import { expect, test } from 'vitest';
import { jobs } from '#contracts';
import { Code, Reason } from '#core';
import { systemClock } from '#runtime';
import { begun, changed, Jobs, type JobsReplica, pictureRequest, startJobsReplica, succeeded } from '../../../test/support/jobs-service.js';
import { type JobsStore, startJobsStore } from '../../../test/support/jobs-store.js';
import { useShared } from '../../../test/support/shared.js';
import { jobKey } from '../domain/record.js';
import { JobIndex } from '../index/job-index.js';

let store: JobsStore;
let a: JobsReplica;
let b: JobsReplica;
const pictures = new Map<string, Uint8Array>();
useShared(
  async () => {
    store = await startJobsStore();
    [a, b] = [await startJobsReplica(store, { pictures }), await startJobsReplica(store, { pictures })];
  },
  async () => {
    for (const replica of [a, b]) await replica?.stop();
    await store?.stop();
  },
);

const submit = async (jobId: string, options?: jobs.JobOptions) =>
  (await a.channel.unary(Jobs.submit, jobs.SubmitRequest.fromPartial({ jobId, request: pictureRequest(), options }))).response.job;
const submitBatch = (batchId: string, count: number) =>
  a.channel.unary(
    Jobs.submitBatch,
    jobs.SubmitBatchRequest.fromPartial({ batchId, items: Array.from({ length: count }, () => ({ request: pictureRequest() })) }),
  );
const get = async (jobId: string, withUrls = false) => (await b.channel.unary(Jobs.get, { jobId, withUrls })).response.job;
const list = async (fields: Partial<jobs.ListRequest>) => (await b.channel.unary(Jobs.list, jobs.ListRequest.fromPartial(fields))).response;
const cancel = async (jobId: string) => (await b.channel.unary(Jobs.cancel, { which: { $case: 'jobId', value: jobId } })).response;
const retry = async (jobId: string) => (await a.channel.unary(Jobs.retry, { jobId })).response.job;
const failure = { code: Code.INTERNAL, reason: 'NAN_OUTPUT', message: 'numbers that are none' };
const unknown = { code: Code.NOT_FOUND, reason: Reason.UNKNOWN_JOB };
const wrongState = (reason: string, state: string) => ({ code: Code.FAILED_PRECONDITION, reason, details: { metadata: { state } } });

async function told(from: AsyncIterable<jobs.WatchResponse>, into: string[] = []): Promise<string[]> {
  for await (const { job } of from)
    into.push(`${job ? jobs.JobState[job.state] : 'none'}${job?.step ? ` ${job.step}/${job.totalSteps}` : ''}`);
  return into;
}
const watch = (at: JobsReplica, jobId: string, fromRevision = 0n) => at.channel.serverStream(Jobs.watch, { jobId, fromRevision });

test('a job is seen as it waits, runs and has ended', async () => {
  await submit('seen');
  expect(await get('seen')).toMatchObject({ state: jobs.JobState.QUEUED, position: expect.any(Number) });
  await changed(a, 'seen', begun);
  expect(await get('seen')).toMatchObject({ state: jobs.JobState.RUNNING, nodeId: 'gpu0', attempt: 1, startedAtMs: 1000n, position: 0 });
  b.stepped(jobKey('anonymous', 'seen'), { attempt: 1, step: 3, totalSteps: 8 });
  expect(await get('seen')).toMatchObject({ step: 3, totalSteps: 8 });
  pictures.set('seen.png', new Uint8Array(10));
  await changed(a, 'seen', succeeded(1, 'seen.png', 10));
  const done = await get('seen', true);
  expect(done).toMatchObject({ state: jobs.JobState.SUCCEEDED, endedAtMs: 2000n, nodeId: 'gpu0', step: 0 });
  expect(done?.result?.images).toMatchObject([{ mimeType: 'image/png', sizeBytes: 10n, seed: 7n, url: 'https://pictures/seen.png' }]);
  expect((await get('seen'))?.result?.images[0]?.url).toBe('');
});

test('a job that waits says why and until when, at any replica, and no more once it runs', async () => {
  const submitted = await submit('waits');
  const key = jobKey('anonymous', 'waits');
  const told: jobs.Job[] = [];
  const watching = (async () => {
    for await (const { job } of watch(b, 'waits')) if (job) told.push(job);
  })();
  await expect.poll(() => told.length).toBe(1);
  expect(told[0]?.waitingFor).toBeUndefined();
  const dueAtMs = Date.now() + 5000;
  const noNodes = { code: Code.UNAVAILABLE, reason: Reason.NO_NODES, message: 'no node takes z-image-tiny' };
  const entry = b.index.get(key) ?? expect.fail('not known');
  b.waits.turnedAway(entry, 'model', { failure: noNodes, nextAttemptAtMs: dueAtMs });
  await expect.poll(() => told.length).toBe(2);
  const waiting = { state: jobs.JobState.QUEUED, waitingFor: noNodes, nextAttemptAtMs: BigInt(dueAtMs), revision: submitted?.revision };
  expect(told[1]).toMatchObject(waiting);
  expect(await get('waits')).toMatchObject(waiting);
  expect((await list({ pageSize: 1 })).jobs).toMatchObject([waiting]);
  await changed(a, 'waits', begun);
  await expect.poll(() => told.length).toBe(3);
  expect(told[2]).toMatchObject({ state: jobs.JobState.RUNNING, nextAttemptAtMs: 0n });
  expect(told[2]?.waitingFor).toBeUndefined();
  b.waits.begun(entry);
  const againAtMs = Date.now() + 60_000;
  await changed(a, 'waits', { kind: 'setBack', failure, counted: true, notBeforeMs: againAtMs });
  expect(await get('waits')).toMatchObject({ waitingFor: failure, nextAttemptAtMs: BigInt(againAtMs) });
  await changed(a, 'waits', { kind: 'setBack', counted: false, notBeforeMs: Date.now() - 1 });
  const due = await get('waits');
  expect([due?.waitingFor, due?.nextAttemptAtMs, due?.failure?.reason]).toEqual([undefined, 0n, 'NAN_OUTPUT']);
  await cancel('waits');
  await watching;
});

test.each(['nobody', 'x'.repeat(64)])('an unknown id is NOT_FOUND everywhere: %s', async (jobId) => {
  await expect(get(jobId)).rejects.toMatchObject(unknown);
  await expect(cancel(jobId)).rejects.toMatchObject(unknown);
  await expect(retry(jobId)).rejects.toMatchObject(unknown);
  await expect(a.channel.unary(Jobs.delete, { jobId })).rejects.toMatchObject(unknown);
  await expect(told(watch(a, jobId))).rejects.toMatchObject(unknown);
  await expect(told(a.channel.serverStream(Jobs.download, { jobId, imageIndex: 0, offset: 0n }) as never)).rejects.toMatchObject(unknown);
});

test.each(['', 'a.b', 'x'.repeat(65), 'é', '../etc'])('an id of the wrong form is INVALID_ARGUMENT: %j', async (jobId) => {
  const invalid = { code: Code.INVALID_ARGUMENT, details: { violations: [expect.objectContaining({ field: 'job_id' })] } };
  await expect(get(jobId)).rejects.toMatchObject(invalid);
  await expect(cancel(jobId)).rejects.toMatchObject(invalid);
  await expect(told(watch(a, jobId))).rejects.toMatchObject(invalid);
});

test('lists by state, batch and time in pages, newest first', async () => {
  await submitBatch('lists', 7);
  await changed(a, 'lists-3', { kind: 'failed', failure, atMs: 5 });
  await expect.poll(() => b.index.job('anonymous', 'lists-3')?.kind).toBe('failed');
  const ids = ({ jobs: found }: jobs.ListResponse) => found.map(({ jobId }) => jobId);
  const first = await list({ batchId: 'lists', pageSize: 3 });
  expect(ids(first)).toEqual(['lists-6', 'lists-5', 'lists-4']);
  expect(first.jobs[0]?.request).toBeUndefined();
  await submit('newer');
  const second = await list({ batchId: 'lists', pageSize: 4, pageToken: first.nextPageToken });
  expect([ids(second), second.nextPageToken]).toEqual([['lists-3', 'lists-2', 'lists-1', 'lists-0'], '']);
  const failed = await list({ states: [jobs.JobState.FAILED] });
  expect(failed.jobs).toMatchObject([{ jobId: 'lists-3', failure: { reason: 'NAN_OUTPUT' } }]);
  expect(ids(await list({ submittedToMs: 1000n }))).toEqual([]);
  expect(ids(await list({ pageSize: 1 }))).toEqual(['newer']);
  const faulty = { pageSize: 1001, pageToken: 'garbage', states: [jobs.JobState.UNSPECIFIED], batchId: '?' };
  const violations = ['page_size', 'batch_id', 'page_token', 'states[0]'].map((field) => expect.objectContaining({ field }));
  await expect(list(faulty)).rejects.toMatchObject({ code: Code.INVALID_ARGUMENT, details: { violations } });
  // As many as a request has room for would take a replica from everybody for a minute.
  const tooMany = { field: 'states', description: 'expected at most 16, got 17' };
  await expect(list({ states: Array(17).fill(jobs.JobState.FAILED) })).rejects.toMatchObject({ details: { violations: [tooMany] } });
});

test('a cancel at any replica is the end of it, twice is once, and what has ended otherwise stays so', async () => {
  await submit('cancelled');
  await changed(a, 'cancelled', begun);
  expect(await cancel('cancelled')).toMatchObject({ cancelledCount: 1, job: { state: jobs.JobState.CANCELLED } });
  expect(await cancel('cancelled')).toMatchObject({ cancelledCount: 0, job: { state: jobs.JobState.CANCELLED } });
  await submit('expired');
  await changed(a, 'expired', { kind: 'expired', atMs: 5 });
  await expect(cancel('expired')).rejects.toMatchObject(wrongState(Reason.JOB_ENDED, 'EXPIRED'));
  await submitBatch('cancels', 3);
  await changed(a, 'cancels-1', { kind: 'failed', failure, atMs: 5 });
  const cancelBatch = async () =>
    (await b.channel.unary(Jobs.cancel, { which: { $case: 'batchId', value: 'cancels' } })).response.cancelledCount;
  expect([await cancelBatch(), await cancelBatch()]).toEqual([2, 0]);
  const batch = async () => (await b.channel.unary(Jobs.getBatch, { batchId: 'cancels' })).response.batch;
  await expect.poll(batch).toMatchObject({ jobCount: 3, cancelledCount: 2, failedCount: 1, queuedCount: 0 });
  await expect(b.channel.unary(Jobs.cancel, { which: undefined })).rejects.toMatchObject({ code: Code.INVALID_ARGUMENT });
});

test('a batch is whole at every replica as soon as it is accepted', async () => {
  for (let n = 0; n < 5; n++) {
    await submitBatch(`whole-${n}`, 50);
    const [counts, listed] = await Promise.all([
      b.channel.unary(Jobs.getBatch, { batchId: `whole-${n}` }),
      list({ batchId: `whole-${n}`, pageSize: 100 }),
    ]);
    expect([counts.response.batch?.jobCount, listed.jobs.length]).toEqual([50, 50]);
  }
  await expect(list({ batchId: 'nobody' })).rejects.toMatchObject(unknown);
});

test('a replica that does not know of a batch yet tells nothing of it rather than that it is empty', async () => {
  await submitBatch('unheard', 2);
  const replica = async () => ({ ...(await store.replica()), index: new JobIndex({ clock: systemClock, onUnreadable: () => {} }) });
  const behind = await startJobsReplica({ ...store, replica }, { pictures });
  await expect(behind.channel.unary(Jobs.getBatch, { batchId: 'unheard' })).rejects.toMatchObject({
    code: Code.UNAVAILABLE,
    reason: Reason.STORE_UNAVAILABLE,
  });
  await behind.stop();
});

test('a batch that is cancelled takes no job with it that has only the id of one of its own', async () => {
  await submitBatch('reused', 2);
  await a.channel.unary(Jobs.delete, { jobId: 'reused-1' });
  await submit('reused-1');
  const { cancelledCount } = (await b.channel.unary(Jobs.cancel, { which: { $case: 'batchId', value: 'reused' } })).response;
  expect(cancelledCount).toBe(1);
  expect(await get('reused-1')).toMatchObject({ batchId: '', state: jobs.JobState.QUEUED });
});

test('a retry runs what failed, expired or was cancelled once more, and nothing else', async () => {
  await submit('again');
  await expect(retry('again')).rejects.toMatchObject(wrongState(Reason.JOB_ACTIVE, 'QUEUED'));
  await changed(a, 'again', begun);
  await expect(retry('again')).rejects.toMatchObject(wrongState(Reason.JOB_ACTIVE, 'RUNNING'));
  await changed(a, 'again', { kind: 'expired', atMs: 5 });
  expect(await retry('again')).toMatchObject({ state: jobs.JobState.QUEUED, attempt: 1, failedAttempts: 0 });
  await changed(a, 'again', begun, succeeded(2, 'again.png', 1));
  await expect(retry('again')).rejects.toMatchObject(wrongState(Reason.JOB_ENDED, 'SUCCEEDED'));
});

test('a job that is deleted is gone with its pictures, and its id is free', async () => {
  await submit('deleted');
  pictures.set('deleted.png', new Uint8Array(1));
  await changed(a, 'deleted', begun, succeeded(1, 'deleted.png', 1));
  await b.channel.unary(Jobs.delete, { jobId: 'deleted' });
  expect(pictures.has('deleted.png')).toBe(false);
  await expect(get('deleted')).rejects.toMatchObject(unknown);
  expect(await submit('deleted')).toMatchObject({ state: jobs.JobState.QUEUED, attempt: 0 });
});

test('of a job whose record is damaged that is said; lists go on without it, and it can be deleted', async () => {
  await submitBatch('damaged', 2);
  await expect.poll(() => b.index.job('anonymous', 'damaged-1')?.kind).toBe('queued');
  a.bus.publish('$KV.dmesh_jobs.job.anonymous.damaged-0', '{"jobId":"damaged-0","state":{"kind":"weird"}}');
  const damaged = { code: Code.DATA_LOSS, reason: Reason.RECORD_DAMAGED };
  await expect.poll(() => get('damaged-0').catch(({ reason }) => reason)).toBe(Reason.RECORD_DAMAGED);
  await expect(cancel('damaged-0')).rejects.toMatchObject(damaged);
  await expect(submit('damaged-0')).rejects.toMatchObject(damaged);
  await expect(told(watch(a, 'damaged-0'))).rejects.toMatchObject(damaged);
  expect((await list({ batchId: 'damaged' })).jobs.map(({ jobId }) => jobId)).toEqual(['damaged-1']);
  await b.channel.unary(Jobs.delete, { jobId: 'damaged-0' });
  await expect(get('damaged-0')).rejects.toMatchObject(unknown);
});

test('of a batch whose record is damaged that is said; written anew as docs/operations.md has it, it is whole again', async () => {
  await submitBatch('torn', 3);
  await expect.poll(() => b.index.job('anonymous', 'torn-2')?.kind).toBe('queued');
  const key = '$KV.dmesh_jobs.batch.anonymous.torn';
  a.bus.publish(key, '{"jobIds":');
  const damaged = { code: Code.DATA_LOSS, reason: Reason.RECORD_DAMAGED };
  const batch = () => b.channel.unary(Jobs.getBatch, { batchId: 'torn' });
  await expect.poll(() => batch().catch(({ reason }) => reason)).toBe(Reason.RECORD_DAMAGED);
  await expect(submitBatch('torn', 3)).rejects.toMatchObject(damaged);
  // Who knew its jobs goes on with them; a replica that starts now keeps them, and does not show them.
  expect((await list({ batchId: 'torn' })).jobs).toHaveLength(3);
  const late = await startJobsReplica(store);
  await expect(late.channel.unary(Jobs.get, { jobId: 'torn-1', withUrls: false })).rejects.toMatchObject(damaged);
  const jobIds = ['torn-0', 'torn-1', 'torn-2'];
  a.bus.publish(key, JSON.stringify({ tenant: 'anonymous', batchId: 'torn', submittedAtMs: 1, jobIds, digest: '' }));
  await expect.poll(() => late.index.job('anonymous', 'torn-1')?.kind).toBe('queued');
  expect((await batch()).response.batch).toMatchObject({ jobCount: 3, queuedCount: 3 });
  expect((await submitBatch('torn', 3)).response).toMatchObject({ created: false, jobIds });
  await late.stop();
});

test('a watch tells every change and step to the end, from whatever revision, at any replica', async () => {
  const first = await submit('watched');
  const lines: string[] = [];
  const whole = told(watch(b, 'watched'), lines);
  await expect.poll(() => lines).toEqual(['QUEUED']);
  await changed(a, 'watched', begun);
  await expect.poll(() => lines).toEqual(['QUEUED', 'RUNNING']);
  b.stepped(jobKey('anonymous', 'watched'), { attempt: 1, step: 1, totalSteps: 8 });
  await expect.poll(() => lines.at(-1)).toBe('RUNNING 1/8');
  const resumed = told(watch(a, 'watched', first?.revision));
  await changed(a, 'watched', { kind: 'setBack', counted: true, failure, notBeforeMs: 9 }, begun, succeeded(2, 'w.png', 1));
  expect(await whole).toEqual(['QUEUED', 'RUNNING', 'RUNNING 1/8', 'QUEUED', 'RUNNING', 'SUCCEEDED']);
  expect((await resumed).at(-1)).toBe('SUCCEEDED');
  const last = (await get('watched'))?.revision ?? 0n;
  expect(await told(watch(a, 'watched'))).toEqual(['SUCCEEDED']);
  expect(await told(watch(a, 'watched', last))).toEqual([]);
  const future = { code: Code.OUT_OF_RANGE, details: { violations: [expect.objectContaining({ field: 'from_revision' })] } };
  await expect(told(watch(a, 'watched', last + 1n))).rejects.toMatchObject(future);
});

test('who watches a job that is deleted is told so', async () => {
  await submit('short');
  const lines: string[] = [];
  const watching = told(watch(a, 'short'), lines);
  await expect.poll(() => lines).toEqual(['QUEUED']);
  await Promise.all([
    expect(watching).rejects.toMatchObject(unknown),
    b.records.readJob('anonymous', 'short').then((stored) => b.records.removeJob('anonymous', 'short', stored?.revision ?? 0)),
  ]);
});

test('a picture comes in pieces from any offset; before the end, beyond it and for a picture there is not, it is refused', async () => {
  await submit('drawn');
  const download = async (imageIndex: number, offset: bigint) => {
    const pieces: jobs.DownloadResponse[] = [];
    for await (const piece of b.channel.serverStream(Jobs.download, { jobId: 'drawn', imageIndex, offset })) pieces.push(piece);
    return pieces;
  };
  await expect(download(0, 0n)).rejects.toMatchObject(wrongState(Reason.NO_RESULT, 'QUEUED'));
  await changed(a, 'drawn', { kind: 'expired', atMs: 3 });
  await expect(download(0, 0n)).rejects.toMatchObject(wrongState(Reason.NO_RESULT, 'EXPIRED'));
  await retry('drawn');
  pictures.set('drawn.png', Buffer.alloc(2500, 'abc'));
  await changed(a, 'drawn', begun, succeeded(1, 'drawn.png', 2500));
  const pieces = await download(0, 700n);
  expect(pieces.map(({ offset, totalBytes }) => [offset, totalBytes])).toEqual([
    [700n, 2500n],
    [1700n, 2500n],
  ]);
  expect(Buffer.concat(pieces.map(({ data }) => data))).toEqual(Buffer.alloc(2500, 'abc').subarray(700));
  expect(pieces[0]).toMatchObject({ mimeType: 'image/png', sha256: 'f'.repeat(64) });
  await expect(download(0, 2501n)).rejects.toMatchObject({ code: Code.OUT_OF_RANGE });
  await expect(download(1, 0n)).rejects.toMatchObject({ code: Code.OUT_OF_RANGE });
});

test('a picture that is gone with its job is not told as lost, nor is it the picture of the job that has its id now', async () => {
  await submit('again');
  pictures.set('first.png', Buffer.from('first'));
  await changed(a, 'again', begun, succeeded(1, 'first.png', 5));
  const download = async () => {
    const pieces: string[] = [];
    const call = b.channel.serverStream(Jobs.download, { jobId: 'again', imageIndex: 0, offset: 0n });
    for await (const { data } of call) pieces.push(Buffer.from(data).toString());
    return pieces.join('');
  };
  await expect.poll(() => b.index.job('anonymous', 'again')?.kind).toBe('succeeded');
  pictures.delete('first.png');
  await expect(download()).rejects.toMatchObject({ code: Code.DATA_LOSS, reason: Reason.RESULT_MISSING });
  // b may have the first one at hand for all of what follows, or hear of each change in time: the answers are the same.
  await a.channel.unary(Jobs.delete, { jobId: 'again' });
  await expect(download()).rejects.toMatchObject(unknown);
  await submit('again');
  await expect(download()).rejects.toMatchObject(wrongState(Reason.NO_RESULT, 'QUEUED'));
  pictures.set('second.png', Buffer.from('second'));
  await changed(a, 'again', begun, succeeded(1, 'second.png', 6));
  expect(await download()).toBe('second');
});

test('while NATS is away everything is UNAVAILABLE at once, and as before when it is back', async () => {
  const before = await submit('kept');
  await store.nats.kill();
  for (const call of [() => submit('away'), () => get('kept'), () => cancel('kept'), () => submitBatch('away', 2)]) {
    await expect(call()).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.STORE_UNAVAILABLE });
  }
  await store.restartNats();
  await expect.poll(() => get('kept').catch(() => undefined), { timeout: 8000 }).toMatchObject({ revision: before?.revision });
  await expect
    .poll(
      () =>
        submit('away').then(
          () => true,
          () => false,
        ),
      { timeout: 8000 },
    )
    .toBe(true);
});
