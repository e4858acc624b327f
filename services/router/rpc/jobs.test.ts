/** A router passes JobsService on: real gRPC on both legs, replicas that announce themselves on a real NATS. */
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Bus, connectBus, ReplicaAnnouncer, ReplicaDirectory } from '#bus';
import { jobs } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import { type Call, Channel, type HandlersOf, Server, type Writer } from '#grpc';
import { findNatsServer, startNatsServer } from '#local-mesh';
import { packageRoot, systemClock, systemRandom } from '#runtime';
import type { RouterEvent } from '../events.js';
import { JobsReplicas } from '../jobs-replicas.js';
import { Jobs, jobsHandlers } from './jobs.js';

const Service = jobs.JobsServiceService;
const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

let natsUrl = '';
beforeEach(async () => {
  const { path: file } = await findNatsServer({ env: process.env, cacheDir: path.join(packageRoot, '.cache'), log: () => {} });
  const nats = await startNatsServer({ path: file });
  cleanups.push(() => nats.stop());
  natsUrl = nats.url;
});

function open(): Bus {
  const bus = connectBus({ url: natsUrl, name: 'test', clock: systemClock, random: () => 0, emit: () => {} });
  cleanups.push(() => bus.close());
  return bus;
}

const jobOf = (jobId: string) => jobs.Job.fromPartial({ jobId });

/** A replica that answers with the job asked for; its server can be cut off as a killed process is. */
async function startReplica(id: string, fakes: Partial<HandlersOf<typeof Service>> = {}, { draining = false } = {}) {
  const calls: Call<unknown>[] = [];
  const seen = <Req, Res>(answer: (request: Req) => Res) => {
    return async (call: Call<Req>) => {
      calls.push(call);
      return answer(call.request);
    };
  };
  const none = async () => Promise.reject(new Error('not part of this test'));
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 22 });
  const handlers: HandlersOf<typeof Service> = {
    submit: seen(({ jobId }) => ({ job: jobOf(jobId), created: true })),
    submitBatch: none,
    get: seen(({ jobId }) => ({ job: jobOf(jobId) })),
    list: none,
    getBatch: none,
    watch: none,
    cancel: none,
    retry: seen(({ jobId }) => ({ job: jobOf(jobId) })),
    delete: none,
    download: none,
    ...fakes,
  };
  server.add(Service, handlers, { endless: ['watch'] });
  const address = `127.0.0.1:${await server.listen('127.0.0.1:0')}`;
  const read = () => ({ service: 'jobs' as const, id, incarnation: '1000-aaaaaa', address, draining });
  const announcer = new ReplicaAnnouncer({ bus: open(), clock: systemClock, random: systemRandom, read });
  announcer.start();
  cleanups.push(
    () => server.close(),
    () => announcer.stop(),
  );
  return { calls, server, announcer };
}

/** The router's half; replicas are drawn by `random`, of those sorted by id. */
async function startRouter({ random = () => 0, replicaCount = 0, clock = systemClock } = {}) {
  const events: RouterEvent[] = [];
  const emit = (event: { type: string }) => void events.push(event as RouterEvent);
  const directory: ReplicaDirectory = new ReplicaDirectory({
    bus: open(),
    clock: systemClock,
    service: 'jobs',
    emit,
    onChange: () => replicas.prune(),
  });
  const replicas = new JobsReplicas({ clock, random, emit, directory, link: {} });
  directory.start();
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 22 });
  server.add(Jobs, jobsHandlers(replicas), { endless: ['watch'] });
  const channel = new Channel(`127.0.0.1:${await server.listen('127.0.0.1:0')}`, { clock: systemClock });
  cleanups.push(
    () => directory.stop(),
    () => replicas.close(),
    () => server.close(),
    () => channel.close(),
  );
  await expect.poll(() => directory.live().length).toBe(replicaCount);
  return { channel, directory, events };
}

const lost = new StatusError({ code: Code.UNAVAILABLE, reason: Reason.CONNECTION_LOST, message: 'lost' });
const draining = new StatusError({ code: Code.UNAVAILABLE, reason: Reason.DRAINING, message: 'stopping' });
const fail = (error: StatusError) => () => Promise.reject(error);
async function all<T>(messages: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const message of messages) list.push(message);
  return list;
}

test('a call reaches a replica with its token, its trace and its deadline, and nothing else; its answer comes back as it is', async () => {
  const { calls } = await startReplica('a');
  const { channel } = await startRouter({ replicaCount: 1 });
  const metadata = { authorization: 'Bearer dm_x', traceparent: '00-1', 'x-mesh-tenant': 'somebody', 'x-own': '1' };
  const deadlineAt = systemClock.now() + 60_000;
  const { response } = await channel.unary(Service.get, { jobId: 'j1', withUrls: true }, { metadata, deadlineAt });
  expect(response.job?.jobId).toBe('j1');
  expect(calls[0]?.request).toEqual({ jobId: 'j1', withUrls: true });
  expect(calls[0]?.metadata).toMatchObject({ authorization: 'Bearer dm_x', traceparent: '00-1' });
  expect(calls[0]?.metadata).not.toMatchObject({ 'x-mesh-tenant': expect.anything() });
  expect(calls[0]?.metadata).not.toMatchObject({ 'x-own': expect.anything() });
  expect(Math.abs((calls[0]?.deadlineAt ?? 0) - deadlineAt)).toBeLessThan(5000);
});

test('what a replica refuses is refused, details and all, and asked of no other', async () => {
  const refusal = new StatusError({
    code: Code.ALREADY_EXISTS,
    reason: 'JOB_DIFFERS',
    message: 'expected the same request',
    violations: [{ field: 'request.prompt', description: 'expected "a", got "b"' }],
  });
  await startReplica('a', { submit: fail(refusal) });
  const b = await startReplica('b');
  const { channel } = await startRouter({ replicaCount: 2 });
  const request = jobs.SubmitRequest.fromPartial({ jobId: 'j1' });
  await expect(channel.unary(Service.submit, request)).rejects.toMatchObject({
    code: Code.ALREADY_EXISTS,
    reason: 'JOB_DIFFERS',
    details: { violations: [{ field: 'request.prompt' }] },
  });
  expect(b.calls).toEqual([]);
});

test('a replica that is gone or stops is passed over, for every call', async () => {
  const a = await startReplica('a', { retry: fail(draining), watch: fail(draining) });
  await startReplica('b', { watch: async (call, out) => out.write({ job: jobOf(call.request.jobId) }) });
  const { channel, events } = await startRouter({ replicaCount: 2 });
  await channel.unary(Service.retry, { jobId: 'j1' });
  expect(await all(channel.serverStream(Service.watch, { jobId: 'j1', fromRevision: 0n }))).toHaveLength(1);
  await a.server.close(); // killed: it goes on announcing itself for a while
  await channel.unary(Service.retry, { jobId: 'j1' });
  expect(events.filter(({ type }) => type === 'jobsReplicaFailed')).toMatchObject([
    { replicaId: 'a', error: { reason: Reason.DRAINING } },
    { replicaId: 'a', error: { reason: Reason.DRAINING } },
    { replicaId: 'a', error: { reason: Reason.CONNECT_FAILED } },
  ]);
});

test('a replica that leaves is asked last', async () => {
  const a = await startReplica('a', {}, { draining: true });
  const b = await startReplica('b');
  const { channel } = await startRouter({ replicaCount: 2 });
  await channel.unary(Service.get, { jobId: 'j1', withUrls: false });
  expect([a.calls.length, b.calls.length]).toEqual([0, 1]);
  await b.server.close();
  await channel.unary(Service.get, { jobId: 'j1', withUrls: false });
  expect(a.calls).toHaveLength(1);
});

test('a replica that does not see NATS is passed over where that can do no harm; the second that does not is believed', async () => {
  let awayCount = 0;
  const away = () => {
    awayCount++;
    const message = 'NATS is away';
    return Promise.reject(new StatusError({ code: Code.UNAVAILABLE, reason: Reason.STORE_UNAVAILABLE, message, retryDelayMs: 1000 }));
  };
  const told = { reason: Reason.STORE_UNAVAILABLE, details: { retryDelayMs: 1000 } };
  await startReplica('a', { get: away, retry: away, submit: away });
  const b = await startReplica('b');
  const { channel, directory, events } = await startRouter({ replicaCount: 2 });
  const get = () => channel.unary(Service.get, { jobId: 'j1', withUrls: false });
  const submit = (jobId: string) => channel.unary(Service.submit, jobs.SubmitRequest.fromPartial({ jobId }));
  await get();
  await submit('j1');
  expect([awayCount, b.calls.length]).toEqual([2, 2]);
  await expect(channel.unary(Service.retry, { jobId: 'j1' })).rejects.toMatchObject(told);
  await expect(submit('')).rejects.toMatchObject(told);
  expect([awayCount, b.calls.length]).toEqual([4, 2]);
  await b.server.close(); // it could not be reached: what the other one answered is told
  await expect(get()).rejects.toMatchObject(told);
  for (const id of ['aa', 'ab']) await startReplica(id, { get: away });
  await expect.poll(() => directory.live().length).toBe(4);
  const [before, toldBefore] = [awayCount, events.length];
  await expect(get()).rejects.toMatchObject(told);
  const failed = events.slice(toldBefore).filter(({ type }) => type === 'jobsReplicaFailed');
  expect([awayCount - before, failed.length]).toEqual([2, 1]);
});

test('a call that was lost on the way is repeated where doing it twice is doing it once', async () => {
  await startReplica('a', { submit: fail(lost), get: fail(lost), retry: fail(lost) });
  const b = await startReplica('b');
  const { channel } = await startRouter({ replicaCount: 2 });
  await channel.unary(Service.get, { jobId: 'j1', withUrls: false });
  await channel.unary(Service.submit, jobs.SubmitRequest.fromPartial({ jobId: 'j1' }));
  expect(b.calls).toHaveLength(2);
  const connectionLost = { code: Code.UNAVAILABLE, reason: Reason.CONNECTION_LOST };
  await expect(channel.unary(Service.submit, jobs.SubmitRequest.fromPartial({}))).rejects.toMatchObject(connectionLost);
  await expect(channel.unary(Service.retry, { jobId: 'j1' })).rejects.toMatchObject(connectionLost);
  expect(b.calls).toHaveLength(2);
  await b.server.close();
  await expect(channel.unary(Service.get, { jobId: 'j1', withUrls: false })).rejects.toMatchObject({ code: Code.UNAVAILABLE });
});

test('a replica that is too busy for two seconds to answer a ping keeps its calls', async () => {
  const { calls } = await startReplica('a');
  // Those seconds pass at once: no word can come before what waits as long falls due.
  const schedule = (ms: number, callback: () => void) => {
    if (ms > 2000) return systemClock.schedule(ms, callback);
    queueMicrotask(callback);
    return () => {};
  };
  const { channel } = await startRouter({ replicaCount: 1, clock: { ...systemClock, schedule } });
  for (const jobId of ['j1', 'j2']) await channel.unary(Service.retry, { jobId });
  expect(calls).toHaveLength(2);
});

test('when all replicas say that NATS is away, so does the router', async () => {
  await startReplica('a', { submit: fail(lost) });
  await startReplica('b', { submit: fail(lost) });
  const { channel } = await startRouter({ replicaCount: 2 });
  await expect(channel.unary(Service.submit, jobs.SubmitRequest.fromPartial({ jobId: 'j1' }))).rejects.toMatchObject({
    reason: Reason.CONNECTION_LOST,
    message: 'lost',
  });
});

test('a stream that breaks after its first message is not begun anew', async () => {
  const breaks = async (_: Call<jobs.DownloadRequest>, out: Writer<jobs.DownloadResponse>) => {
    await out.write(jobs.DownloadResponse.fromPartial({ data: Buffer.alloc(200_000, 1), totalBytes: 400_000n }));
    throw lost;
  };
  await startReplica('a', { download: breaks });
  const b = await startReplica('b', { download: async () => {} });
  const { channel } = await startRouter({ replicaCount: 2 });
  const messages: jobs.DownloadResponse[] = [];
  const read = async () => {
    for await (const message of channel.serverStream(Service.download, { jobId: 'j1', imageIndex: 0, offset: 0n })) messages.push(message);
  };
  await expect(read()).rejects.toMatchObject({ reason: Reason.CONNECTION_LOST });
  expect(messages.map(({ data }) => data.length)).toEqual([200_000]);
  expect(b.calls).toEqual([]);
});

test('a caller that leaves a watch ends it on the replica', async () => {
  let ended: (reason: StatusError) => void = () => {};
  const reason = new Promise<StatusError>((resolve) => {
    ended = resolve;
  });
  await startReplica('a', {
    watch: async (call, out) => {
      call.signal.addEventListener('abort', () => ended(StatusError.from(call.signal.reason)));
      await out.write({ job: jobOf('j1') });
      await reason;
    },
  });
  const { channel } = await startRouter({ replicaCount: 1 });
  for await (const { job } of channel.serverStream(Service.watch, { jobId: 'j1', fromRevision: 0n })) {
    expect(job?.jobId).toBe('j1');
    break;
  }
  expect(await reason).toMatchObject({ code: Code.CANCELLED });
});

test('without a replica a call is told so; a router that has just started looks for one first', async () => {
  const { channel, directory } = await startRouter();
  const asked = channel.unary(Service.get, { jobId: 'j1', withUrls: false });
  const refusal = { code: Code.UNAVAILABLE, reason: Reason.NO_JOBS_SERVICE, message: expect.stringContaining('none has announced') };
  await expect(asked).rejects.toMatchObject(refusal);
  expect(directory.settledAt).toBeDefined();
  const a = await startReplica('a');
  await expect.poll(() => directory.live().length).toBe(1);
  await channel.unary(Service.get, { jobId: 'j1', withUrls: false });
  await a.server.close();
  await expect(channel.unary(Service.get, { jobId: 'j1', withUrls: false })).rejects.toMatchObject({
    reason: Reason.NO_JOBS_SERVICE,
    message: expect.stringContaining('1 could not'),
  });
  await a.announcer.stop();
  await expect.poll(() => directory.live().length).toBe(0);
  await expect(channel.unary(Service.get, { jobId: 'j1', withUrls: false })).rejects.toMatchObject(refusal);
});
