/** Submit and SubmitBatch at two replicas with a real NATS: what is accepted once, and what is refused. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { hashSecret, makeToken } from '#access';
import { generation, jobs } from '#contracts';
import { Code, Reason } from '#core';
import { Jobs, type JobsReplica, type JobsReplicaOptions, pictureRequest, startJobsReplica } from '../../../test/support/jobs-service.js';
import { type JobsStore, queuedJob, startJobsStore } from '../../../test/support/jobs-store.js';

let store: JobsStore;
let a: JobsReplica;
let b: JobsReplica;
const replicas: JobsReplica[] = [];
const start = async (options?: JobsReplicaOptions) => {
  const replica = await startJobsReplica(store, options);
  replicas.push(replica);
  return replica;
};
beforeAll(async () => {
  store = await startJobsStore();
  [a, b] = [await start(), await start()];
});
afterAll(async () => {
  for (const replica of replicas) await replica.stop();
  await store.stop();
});

const submit = async (at: JobsReplica, fields: Partial<jobs.SubmitRequest> = {}, token?: string) => {
  const metadata = token === undefined ? {} : { authorization: `Bearer ${token}` };
  return (await at.channel.unary(Jobs.submit, jobs.SubmitRequest.fromPartial({ request: pictureRequest(), ...fields }), { metadata }))
    .response;
};
const submitBatch = async (at: JobsReplica, batchId: string, items: Partial<jobs.BatchItem>[], options?: jobs.JobOptions) => {
  const request = jobs.SubmitBatchRequest.fromPartial({
    batchId,
    options,
    items: items.map((item) => ({ request: pictureRequest(), ...item })),
  });
  return (await at.channel.unary(Jobs.submitBatch, request)).response;
};
const get = async (at: JobsReplica, jobId: string) => (await at.channel.unary(Jobs.get, { jobId, withUrls: false })).response.job;
const violations = (fields: string[]) => ({
  code: Code.INVALID_ARGUMENT,
  reason: Reason.BAD_REQUEST,
  details: { violations: fields.map((field) => expect.objectContaining({ field })) },
});
const differs = (fields: string) => ({ code: Code.ALREADY_EXISTS, reason: Reason.JOB_DIFFERS, details: { metadata: { fields } } });

test('what is accepted is found at every replica at once, with model, seed and class', async () => {
  const { created, job } = await submit(a);
  expect(created).toBe(true);
  const found = await get(b, job?.jobId ?? '');
  expect(found).toMatchObject({
    state: jobs.JobState.QUEUED,
    tenant: 'anonymous',
    priority: generation.Priority.LOW,
    attempt: 0,
    revision: job?.revision,
  });
  expect(found?.request).toMatchObject({ model: 'z-image-tiny', seed: expect.any(BigInt), requestId: job?.jobId });
  expect(Number(found?.expiresAtMs) - Number(found?.submittedAtMs)).toBe(60_000);
  expect((await submit(a)).job?.jobId).not.toBe(job?.jobId);
});

test('the same id with the same request is the same job at whatever replica, also many at once', async () => {
  const all = await Promise.all(Array.from({ length: 20 }, (_, n) => submit(n % 2 ? a : b, { jobId: 'same' })));
  expect(all.filter(({ created }) => created)).toHaveLength(1);
  expect(new Set(all.map(({ job }) => job?.request?.seed)).size).toBe(1);
  const [{ job } = { job: undefined }] = all;
  const seed = job?.request?.seed;
  expect((await submit(b, { jobId: 'same', request: pictureRequest({ seed, model: 'z-image-tiny' }) })).created).toBe(false);
  const other = pictureRequest({ prompt: 'other', seed: (seed ?? 0n) + 1n, width: 64, priority: generation.Priority.HIGH });
  await expect(submit(a, { jobId: 'same', request: other })).rejects.toMatchObject(
    differs('request.prompt,request.width,request.seed,request.priority'),
  );
});

test.each<[string, Partial<jobs.SubmitRequest>, string[]]>([
  ['an id of the wrong form', { jobId: 'no spaces' }, ['job_id']],
  ['an id that is too long', { jobId: 'x'.repeat(65) }, ['job_id']],
  ['no request', { request: undefined }, ['request']],
  ['a request_id', { request: pictureRequest({ requestId: 'r' }) }, ['request.request_id']],
  [
    'several faults at once',
    { jobId: '.', request: pictureRequest({ prompt: '', width: 65, steps: 999 }), options: { expireAfterMs: 5n, webhookUrl: '' } },
    ['job_id', 'options.expire_after_ms', 'request.prompt', 'request.width', 'request.steps'],
  ],
  ['expiry beyond the bound', { options: { expireAfterMs: 3_600_001n, webhookUrl: '' } }, ['options.expire_after_ms']],
  ['a model among other faults', { request: pictureRequest({ model: 'nope', requestId: 'x' }) }, ['request.request_id', 'request.model']],
])('refuses %s', async (_, fields, faulty) => {
  await expect(submit(a, fields)).rejects.toMatchObject(violations(faulty));
});

test('a model or LoRA that is not there, and a webhook that cannot be told, have their own answers', async () => {
  await expect(submit(a, { request: pictureRequest({ model: 'nope' }) })).rejects.toMatchObject({
    code: Code.NOT_FOUND,
    reason: Reason.UNKNOWN_MODEL,
  });
  const loras = [{ name: 'nope', strength: 1 }];
  await expect(submit(a, { request: pictureRequest({ loras }) })).rejects.toMatchObject({
    code: Code.NOT_FOUND,
    reason: Reason.UNKNOWN_LORA,
  });
  const options = { webhookUrl: 'ftp://x', expireAfterMs: undefined };
  await expect(submit(a, { options })).rejects.toMatchObject({ reason: Reason.WEBHOOK_REFUSED });
  await expect(submit(a, { jobId: '.', options })).rejects.toMatchObject(violations(['options.webhook_url', 'job_id']));
});

test('while no model is known, what is well-formed is accepted', async () => {
  const early = await start({ models: [] });
  expect((await submit(early, { request: pictureRequest({ width: 12_345 }) })).job?.request?.model).toBe('');
  await expect(submit(early, { request: pictureRequest({ prompt: '' }) })).rejects.toMatchObject(violations(['request.prompt']));
  const long = 'x'.repeat(129);
  const request = pictureRequest({
    model: long,
    loras: [
      { name: 'lora', strength: 1 },
      { name: long, strength: 1 },
    ],
  });
  await expect(submit(early, { request })).rejects.toMatchObject(violations(['request.model', 'request.loras[1].name']));
});

test('a batch is accepted as a whole, and the same one again is the same', async () => {
  const items = [{}, { jobId: 'mine' }, { request: pictureRequest({ seed: 9n }) }];
  const both = await Promise.all([submitBatch(a, 'b1', items), submitBatch(b, 'b1', items)]);
  expect(both.map(({ created }) => created).sort()).toEqual([false, true]);
  const ids = ['b1-0', 'mine', 'b1-2'];
  for (const { jobIds } of both) expect(jobIds).toEqual(ids);
  for (const id of ids) expect(await get(b, id)).toMatchObject({ batchId: 'b1', state: jobs.JobState.QUEUED });
  expect((await get(a, 'b1-2'))?.request?.seed).toBe(9n);
  expect(await submitBatch(b, 'b1', items)).toMatchObject({ created: false, batch: { jobCount: 3, queuedCount: 3 } });
  const seed = (await get(a, 'b1-0'))?.request?.seed;
  expect(await submitBatch(a, 'b1', [{ request: pictureRequest({ seed }) }, ...items.slice(1)])).toMatchObject({ created: false });
  await expect(
    submitBatch(a, 'b1', [items[0] ?? {}, { jobId: 'mine', request: pictureRequest({ prompt: 'x' }) }, items[2] ?? {}]),
  ).rejects.toMatchObject(differs('items[1].request.prompt'));
  await expect(submitBatch(a, 'b1', [{}])).rejects.toMatchObject(differs('items'));
});

test('a batch of which a job was forgotten is another, unless it is the same to the letter', async () => {
  const items = [{ request: pictureRequest({ prompt: 'one' }) }, { request: pictureRequest({ prompt: 'two' }) }];
  await submitBatch(a, 'b7', items);
  await a.channel.unary(Jobs.delete, { jobId: 'b7-1' });
  expect(await submitBatch(b, 'b7', items)).toMatchObject({ created: false });
  const other = { request: pictureRequest({ prompt: 'three' }) };
  await expect(submitBatch(b, 'b7', [...items.slice(0, 1), other])).rejects.toMatchObject(differs('items[1]'));
  await expect(submitBatch(b, 'b7', [...items.slice(0, 1), { request: undefined }])).rejects.toMatchObject(
    violations(['items[1].request']),
  );
});

test('another webhook is another submission; none is the one there is', async () => {
  const options = (webhookUrl: string) => ({ webhookUrl, expireAfterMs: undefined });
  const [hook, other] = [options('https://hooks.example/one#here'), options('https://hooks.example/two')];
  await submit(a, { jobId: 'told', options: hook });
  expect((await submit(b, { jobId: 'told', options: hook })).created).toBe(false);
  expect((await submit(b, { jobId: 'told' })).created).toBe(false);
  await expect(submit(b, { jobId: 'told', options: other })).rejects.toMatchObject(differs('options.webhook_url'));
  await submitBatch(a, 'b8', [{}, {}], hook);
  for (const same of [hook, undefined]) expect((await submitBatch(b, 'b8', [{}, {}], same)).created).toBe(false);
  await expect(submitBatch(b, 'b8', [{}, {}], other)).rejects.toMatchObject(differs('options.webhook_url'));
});

test('of a batch with a job that is there already, nothing is accepted', async () => {
  await submit(a, { jobId: 'taken' });
  await expect(submitBatch(b, 'b2', [{}, { jobId: 'taken' }, {}])).rejects.toMatchObject({
    ...differs('items[1].job_id'),
    message: expect.stringContaining('the batch b2 was not accepted'),
  });
  for (const id of ['b2-0', 'b2-2']) await expect(get(a, id)).rejects.toMatchObject({ reason: Reason.UNKNOWN_JOB });
  await expect.poll(() => [...b.index.entries()].filter(({ batchId }) => batchId === 'b2')).toEqual([]);
});

test('what a submission that died has left is taken over by the next, with its seeds', async () => {
  const left = queuedJob('b3-0', { tenant: 'anonymous', batchId: 'b3', request: pictureRequest({ model: 'z-image-tiny', seed: 77n }) });
  await a.records.createJob(left);
  await expect(get(b, 'b3-0')).rejects.toMatchObject({ code: Code.NOT_FOUND });
  await expect(submit(a, { jobId: 'b3-0' })).rejects.toMatchObject(differs('batch_id'));
  expect(await submitBatch(b, 'b3', [{}, {}])).toMatchObject({ created: true });
  expect((await get(a, 'b3-0'))?.request?.seed).toBe(77n);
});

test('another batch of that name does not take it over', async () => {
  const left = queuedJob('b5-1', { tenant: 'anonymous', batchId: 'b5', request: pictureRequest({ model: 'z-image-tiny', seed: 77n }) });
  await a.records.createJob(left);
  await expect(submitBatch(b, 'b5', [{}, { request: pictureRequest({ prompt: 'other' }) }])).rejects.toMatchObject(
    differs('items[1].job_id'),
  );
  expect((await b.records.readJob('anonymous', 'b5-1'))?.job).toEqual(left);
  expect(await b.records.readJob('anonymous', 'b5-0')).toBeUndefined();
});

test('of different batches of one name at the same time one is accepted as it is, or none', async () => {
  const prompts = ['one', 'two', 'three', 'four'];
  const all = await Promise.allSettled(
    prompts.map((prompt, n) =>
      submitBatch(
        n % 2 ? a : b,
        'b6',
        Array.from({ length: 20 }, () => ({ request: pictureRequest({ prompt }) })),
      ),
    ),
  );
  const accepted = prompts.filter((_, n) => all[n]?.status === 'fulfilled');
  expect(accepted.length).toBeLessThanOrEqual(1);
  const { jobs: found } = (await a.channel.unary(Jobs.list, jobs.ListRequest.fromPartial({ batchId: 'b6' }))).response;
  expect(found).toHaveLength(20 * accepted.length);
  for (const { jobId } of found) expect((await get(b, jobId))?.request?.prompt).toBe(accepted[0]);
});

test('a batch of 0 or 1,001, doubled ids, a bad id, one bad request among 1,000: each is told, and nothing is kept', async () => {
  await expect(submitBatch(a, 'b4', [])).rejects.toMatchObject(violations(['items']));
  await expect(
    submitBatch(
      a,
      'b4',
      Array.from({ length: 1001 }, () => ({})),
    ),
  ).rejects.toMatchObject(violations(['items']));
  await expect(submitBatch(a, 'b4', [{ jobId: 'x' }, { jobId: 'x' }, { jobId: '..' }])).rejects.toMatchObject(
    violations(['items[1].job_id', 'items[2].job_id']),
  );
  await expect(submitBatch(a, 'not an id', [{ jobId: 'x' }])).rejects.toMatchObject(violations(['batch_id']));
  await expect(submitBatch(a, 'x'.repeat(64), [{}])).rejects.toMatchObject(violations(['batch_id']));
  const thousand = Array.from({ length: 1000 }, (_, n) => (n === 617 ? { request: pictureRequest({ width: 1, prompt: '' }) } : {}));
  await expect(submitBatch(a, 'b4', thousand)).rejects.toMatchObject(violations(['items[617].request.prompt', 'items[617].request.width']));
  expect([...a.index.entries()].filter(({ batchId }) => batchId === 'b4')).toEqual([]);
  await expect(a.channel.unary(Jobs.getBatch, { batchId: 'b4' })).rejects.toMatchObject({
    code: Code.NOT_FOUND,
    reason: Reason.UNKNOWN_JOB,
  });
});

test('a tenant has bounds, and what is full refuses before it accepts', async () => {
  const made = makeToken();
  const hash = await hashSecret(made.secret, { ln: 10, r: 8, p: 1 });
  const token = {
    id: made.id,
    tenant: 'bounded',
    hash,
    maxPriority: 'normal',
    ratePerSec: 0.001,
    burst: 6,
    gpuSecondsPerMinute: undefined,
  } as const;
  let full = false;
  const limited = await start({
    config: { tokenFile: 'tokens.json', bounds: { maxWaitingCount: 2, maxStoredBytes: 2 ** 30 } },
    isFull: () => full,
  });
  limited.door.replace([{ ...token, models: ['z-image-tiny'], admin: true, actsFor: false }]);
  await expect(submit(limited)).rejects.toMatchObject({ code: Code.UNAUTHENTICATED });
  await expect(submit(limited, {}, `${made.text}x`)).rejects.toMatchObject({ code: Code.UNAUTHENTICATED });
  const urgent = pictureRequest({ priority: generation.Priority.HIGH });
  await expect(submit(limited, { request: urgent }, made.text)).rejects.toMatchObject({ reason: Reason.FORBIDDEN });
  full = true;
  await expect(submit(limited, {}, made.text)).rejects.toMatchObject({ reason: Reason.STORE_FULL });
  full = false;
  const first = await submit(limited, { jobId: 'one' }, made.text);
  expect(first.job?.tenant).toBe('bounded');
  await submit(limited, {}, made.text);
  await expect(submit(limited, {}, made.text)).rejects.toMatchObject({ reason: Reason.TOO_MANY_JOBS });
  expect((await submit(limited, { jobId: 'one' }, made.text)).created).toBe(false);
  await expect(submit(limited, { jobId: 'one' }, made.text)).rejects.toMatchObject({ reason: Reason.RATE_LIMITED });
  // For others it does not exist, and their ids are their own.
  await expect(get(a, 'one')).rejects.toMatchObject({ code: Code.NOT_FOUND, reason: Reason.UNKNOWN_JOB });
  expect((await submit(a, { jobId: 'one' })).created).toBe(true);
});

test('records that come near their room refuse new ones', async () => {
  const small = await start({ maxRecordBytes: 1000 });
  await expect(submit(small)).rejects.toMatchObject({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.STORE_FULL });
});
