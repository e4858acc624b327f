import { createHash } from 'node:crypto';
import { afterEach, expect, test } from 'vitest';
import { generation, jobs } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import { type HandlersOf, Server } from '#grpc';
import { systemClock } from '#runtime';
import { connectMesh, type Job, JobState } from './index.js';

const Jobs = jobs.JobsServiceService;
type Handlers = HandlersOf<typeof Jobs>;
const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A mesh of one server whose methods the test writes. Retries come at once, random is always 0. */
async function mesh(handlers: Partial<Handlers>) {
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20 });
  const none = () => Promise.reject(new Error('not part of this test'));
  const all = Object.fromEntries(Object.keys(Jobs).map((name) => [name, none]));
  server.add(Jobs, { ...all, ...handlers } as Handlers);
  const client = connectMesh({ address: `127.0.0.1:${await server.listen('127.0.0.1:0')}`, random: () => 0 });
  cleanups.push(
    () => server.close(),
    () => client.close(),
  );
  return client.jobs;
}

const job = (fields: Partial<Job>): Job => jobs.Job.fromPartial(fields);
const lost = () => new StatusError({ code: Code.UNAVAILABLE, reason: Reason.CONNECTION_LOST, message: 'lost' });
const away = () => new StatusError({ code: Code.UNAVAILABLE, reason: Reason.NO_JOBS_SERVICE, message: 'none', retryDelayMs: 1 });
/** Throws these one after the other, then answers. */
const afterFailing = <T>(errors: StatusError[], answer: () => T) => {
  return async () => {
    const error = errors.shift();
    if (error) throw error;
    return answer();
  };
};
async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}

test('submit() gives a job an id, and leaves its seed to the mesh, so that a repetition is the same job', async () => {
  const seen: jobs.SubmitRequest[] = [];
  const client = await mesh({
    submit: async ({ request }) => {
      seen.push(request);
      if (seen.length === 1) throw lost();
      return { job: job({ jobId: request.jobId }), created: false };
    },
  });
  const { job: submitted, created } = await client.submit({ prompt: 'a red circle', priority: 'high' }, { expireAfterMs: 5000 });
  expect(seen[0]).toEqual(seen[1]);
  expect([submitted.jobId, created]).toEqual([seen[0]?.jobId, false]);
  expect(seen[0]).toMatchObject({
    jobId: 'j-00000000000000',
    request: { prompt: 'a red circle', seed: undefined, requestId: '', priority: generation.Priority.HIGH },
    options: { expireAfterMs: 5000n, webhookUrl: '' },
  });
});

test('submitBatch() keeps the ids and seeds it is given', async () => {
  let seen: jobs.SubmitBatchRequest | undefined;
  const client = await mesh({
    submitBatch: async ({ request }) => {
      seen = request;
      return { batch: jobs.Batch.fromPartial({ batchId: request.batchId, jobCount: 2 }), jobIds: ['a', 'b-1'], created: true };
    },
  });
  const submitted = await client.submitBatch([{ prompt: 'x', seed: 7, jobId: 'a' }, { prompt: 'y' }], { batchId: 'b' });
  expect(submitted).toMatchObject({ batch: { batchId: 'b', jobCount: 2 }, jobIds: ['a', 'b-1'], created: true });
  expect(seen?.items).toMatchObject([
    { jobId: 'a', request: { prompt: 'x', seed: 7n } },
    { jobId: '', request: { prompt: 'y', seed: undefined } },
  ]);
});

test('list() reads page after page, as they are asked for', async () => {
  const pages: jobs.ListRequest[] = [];
  const client = await mesh({
    list: async ({ request }) => {
      pages.push(request);
      return { jobs: [job({ jobId: `${request.pageToken}x` })], nextPageToken: request.pageToken === '' ? 'p2' : '' };
    },
  });
  const filter = { states: [JobState.FAILED], batchId: 'b', submittedFromMs: 5 };
  for await (const { jobId } of client.list(filter)) {
    expect(jobId).toBe('x');
    break;
  }
  expect(pages).toHaveLength(1);
  expect((await all(client.list(filter))).map(({ jobId }) => jobId)).toEqual(['x', 'p2x']);
  expect(pages[2]).toMatchObject({ pageToken: 'p2', states: [JobState.FAILED], batchId: 'b', submittedFromMs: 5n, submittedToMs: 0n });
});

test('watch() goes on from the revision it has seen when the connection breaks, waitFor() to the end', async () => {
  const revisions: bigint[] = [];
  const client = await mesh({
    watch: async ({ request }, out) => {
      revisions.push(request.fromRevision);
      if (revisions.length === 1) {
        await out.write({ job: job({ revision: 4n, state: JobState.QUEUED }) });
        throw lost();
      }
      if (revisions.length === 2) throw away();
      await out.write({ job: job({ revision: 9n, state: JobState.FAILED }) });
    },
  });
  expect(await client.waitFor('j1')).toMatchObject({ revision: 9n, state: JobState.FAILED });
  expect(revisions).toEqual([0n, 4n, 4n]);
});

test('waitFor() of a stream that ends before the job does is an error, and so is what the mesh refuses', async () => {
  const unknown = new StatusError({ code: Code.NOT_FOUND, reason: 'UNKNOWN_JOB', message: 'no such job' });
  const client = await mesh({
    watch: async ({ request }, out) => {
      if (request.jobId === 'unknown') throw unknown;
      await out.write({ job: job({ revision: 4n, state: JobState.RUNNING }) });
    },
  });
  await expect(client.waitFor('j1')).rejects.toMatchObject({ reason: Reason.BAD_STREAM });
  await expect(client.waitFor('unknown')).rejects.toMatchObject({ code: Code.NOT_FOUND, reason: 'UNKNOWN_JOB' });
});

test('get, cancel and batches are repeated when the connection breaks, retry and delete are not', async () => {
  const answer = { job: job({ jobId: 'j1' }) };
  const client = await mesh({
    get: afterFailing([lost(), away()], () => answer),
    getBatch: afterFailing([lost()], () => ({ batch: jobs.Batch.fromPartial({ batchId: 'b' }) })),
    cancel: afterFailing([lost()], () => ({ ...answer, cancelledCount: 3 })),
    retry: afterFailing([away(), lost()], () => answer),
    delete: afterFailing([lost()], () => ({})),
  });
  expect((await client.get('j1')).jobId).toBe('j1');
  expect((await client.getBatch('b')).batchId).toBe('b');
  expect((await client.cancel('j1')).jobId).toBe('j1');
  expect(await client.cancelBatch('b')).toBe(3);
  await expect(client.retry('j1')).rejects.toMatchObject({ reason: Reason.CONNECTION_LOST });
  await expect(client.delete('j1')).rejects.toMatchObject({ reason: Reason.CONNECTION_LOST });
});

const file = Buffer.from('a whole picture');
const sha256 = createHash('sha256').update(file).digest('hex');
const piece = (from: number, to: number, more: Partial<jobs.DownloadResponse> = {}) =>
  jobs.DownloadResponse.fromPartial({
    data: file.subarray(from, to),
    offset: BigInt(from),
    totalBytes: BigInt(file.length),
    mimeType: 'image/png',
    sha256,
    ...more,
  });

test('download() goes on at its offset when the connection breaks, and checks the digest', async () => {
  const offsets: bigint[] = [];
  const client = await mesh({
    download: async ({ request }, out) => {
      offsets.push(request.offset);
      if (offsets.length > 1) return out.write(piece(Number(request.offset), file.length));
      await out.write(piece(0, 5));
      await out.write(piece(5, 7));
      throw lost();
    },
  });
  const received: number[] = [];
  const picture = await client.download('j1', { onProgress: ({ receivedBytes }) => received.push(receivedBytes) });
  expect(Buffer.from(picture.data)).toEqual(file);
  expect(picture).toMatchObject({ mimeType: 'image/png', sha256 });
  expect(offsets).toEqual([0n, BigInt(received.at(-2) ?? 0)]);
  expect(received.at(-1)).toBe(file.length);
});

test.each([
  ['another digest', [piece(0, file.length, { sha256: 'ff' })], Reason.RESULT_DAMAGED],
  ['a hole', [piece(0, 3), piece(5, file.length)], Reason.BAD_STREAM],
  ['too little', [piece(0, 3)], Reason.BAD_STREAM],
  ['too much', [piece(0, file.length), piece(0, 3, { offset: BigInt(file.length) })], Reason.BAD_STREAM],
  ['nothing', [], Reason.BAD_STREAM],
  ['a size that nobody can have', [piece(0, 3, { totalBytes: 2n ** 40n })], Reason.BAD_STREAM],
  ['two sizes', [piece(0, 3), piece(3, 5, { totalBytes: 99n })], Reason.BAD_STREAM],
])('download() of %s is DATA_LOSS', async (_, pieces, reason) => {
  const client = await mesh({
    download: async (_call, out) => {
      for (const message of pieces) await out.write(message);
    },
  });
  await expect(client.download('j1')).rejects.toMatchObject({ code: Code.DATA_LOSS, reason });
});

test('what onProgress throws ends a download and is what the caller gets', async () => {
  const client = await mesh({ download: async (_, out) => out.write(piece(0, file.length)) });
  const mine = new Error('mine');
  const failed = client.download('j1', {
    onProgress: () => {
      throw mine;
    },
  });
  await expect(failed).rejects.toBe(mine);
});
