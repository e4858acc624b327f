/** Records against a real nats-server: followed by several, killed, stalled, lost, and refused. */
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { connect, DiscardPolicy, type NatsConnection } from 'nats';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Code, Reason } from '#core';
import { type NatsServer, startNatsServer } from '../local-mesh/nats-server.js';
import { findNatsServer } from '../local-mesh/nats-server-find.js';
import { systemClock } from '../runtime/index.js';
import { connectBus } from './bus.js';
import { type BucketSettings, prepareBucket } from './kept-bucket.js';
import { KeptRecords } from './kept-records.js';

const cleanups: (() => Promise<void> | void)[] = [];
let dir = '';
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'dmesh-records-'));
  cleanups.push(() => rm(dir, { recursive: true, force: true }));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function startNats(options: { port?: number; jetstream?: boolean; store?: string } = {}): Promise<NatsServer> {
  const cacheDir = path.resolve(import.meta.dirname, '../../.cache');
  const { path: file } = await findNatsServer({ env: process.env, cacheDir, log: () => {} });
  const { port = 0, jetstream = true, store = 'store' } = options;
  const server = await startNatsServer({ path: file, port, jetstream, dir: path.join(dir, store) });
  cleanups.push(() => server.stop());
  return server;
}

const SETTINGS: BucketSettings = {
  bucket: 'things',
  description: 'of a test',
  replicaCount: 1,
  maxBytes: 1 << 24,
  maxRecordBytes: 1 << 16,
};

/** `beforeFollowing`: once the bucket has been looked at. */
function follow(url: string, settings: Partial<BucketSettings> = {}, beforeFollowing = async () => {}) {
  const bus = connectBus({ url, name: 'test', clock: systemClock, random: () => 0, emit: () => {}, pingIntervalMs: 200 });
  /** What a follower knows, and all it was told. */
  const known = new Map<string, string>();
  const told: string[] = [];
  const records = new KeptRecords({
    bus: { attach: (attachment) => bus.attach((connection) => attachment(subscribingAfter(connection, beforeFollowing))) },
    clock: systemClock,
    settings: { ...SETTINGS, ...settings },
    onRecord: ({ key, data, revision }) => {
      known.set(key, Buffer.from(data).toString());
      told.push(`${key}@${revision}`);
    },
    onRemoved: (key) => {
      known.delete(key);
      told.push(`${key} gone`);
    },
    onState: ({ kind }) => told.push(kind),
  });
  records.start();
  cleanups.push(async () => {
    records.stop();
    await bus.close();
  });
  return { records, known, told, now: () => Object.fromEntries([...known].sort()) };
}

function subscribingAfter(connection: NatsConnection, before: () => Promise<void>): NatsConnection {
  const jetstream: NatsConnection['jetstream'] = (options) => {
    const js = connection.jetstream(options);
    const subscribe: typeof js.subscribe = async (...args) => {
      await before();
      return js.subscribe(...args);
    };
    return withOwn(js, { subscribe });
  };
  return withOwn(connection, { jetstream });
}

function withOwn<T extends object>(target: T, own: Partial<T>): T {
  return new Proxy(target, {
    get: (_, name) => {
      const value: unknown = Reflect.get(name in own ? own : target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

const text = (value: string) => Buffer.from(value);
const soon = { timeout: 8000, interval: 10 };
const changedMeanwhile = { code: Code.ABORTED, reason: Reason.CHANGED_MEANWHILE };

it('who follows hears of every record, change and removal; who comes later hears what is left', async () => {
  const { url } = await startNats();
  const [a, b] = [follow(url), follow(url)];
  await expect.poll(() => [a.told, b.told], soon).toEqual([['following'], ['following']]);
  expect(await a.records.create('x.1', text('one'))).toBe(1);
  expect(a.told).toEqual(['following', 'x.1@1']); // the writer knows at once
  expect(await a.records.create('x.2', text('two'))).toBe(2);
  expect(await b.records.replace('x.1', text('uno'), 1)).toBe(3);
  await b.records.remove('x.2', 2);
  await expect.poll(() => a.told.slice(1), soon).toEqual(['x.1@1', 'x.2@2', 'x.1@3', 'x.2 gone']);
  expect(await b.records.read('x.1')).toEqual({ key: 'x.1', data: Uint8Array.from(text('uno')), revision: 3 });
  expect(await b.records.read('x.2')).toBeUndefined();
  const late = follow(url);
  await expect.poll(() => late.told, soon).toEqual(['x.1@3', 'following']);
  expect(await late.records.create('x.2', text('anew'))).toBe(5); // a removed key can be taken again
  await expect.poll(() => b.now(), soon).toEqual({ 'x.1': 'uno', 'x.2': 'anew' });
});

it('of many who create or change one key, one succeeds', async () => {
  const { url } = await startNats();
  const [a, b] = [follow(url), follow(url)];
  await expect.poll(() => [a.records.state.kind, b.records.state.kind], soon).toEqual(['following', 'following']);
  const race = async (write: (who: typeof a, n: number) => Promise<unknown>) => {
    const all = await Promise.allSettled(Array.from({ length: 20 }, (_, n) => write(n % 2 ? a : b, n)));
    const refused = all.filter((one): one is PromiseRejectedResult => one.status === 'rejected');
    expect(refused).toHaveLength(19);
    for (const { reason } of refused) expect(reason).toMatchObject(changedMeanwhile);
  };
  await race(({ records }, n) => records.create('k', text(`first ${n}`)));
  const first = await a.records.read('k');
  await race(({ records }, n) => records.replace('k', text(`second ${n}`), first?.revision ?? 0));
  const second = await a.records.read('k');
  await race(({ records }, n) =>
    n === 7 ? records.remove('k', second?.revision ?? 0) : records.replace('k', text('late'), first?.revision ?? 0),
  );
  await expect.poll(() => [a.now(), b.now()], soon).toEqual([{}, {}]);
});

it('after NATS was killed and came back, it tells only what changed meanwhile, removals included', async () => {
  const nats = await startNats();
  const [a, b] = [follow(nats.url), follow(nats.url)];
  await expect.poll(() => [a.records.state.kind, b.records.state.kind], soon).toEqual(['following', 'following']);
  const revisions = await Promise.all(['k1', 'k2', 'k3'].map((key) => a.records.create(key, text(key))));
  await expect.poll(() => b.known.size, soon).toBe(3);
  await nats.kill();
  await expect(a.records.create('k4', text('k4'))).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.STORE_UNAVAILABLE });
  await expect(a.records.read('k1')).rejects.toMatchObject({ code: Code.UNAVAILABLE });
  await expect.poll(() => b.told.at(-1), soon).toBe('waiting');
  b.told.length = 0;
  // While b hears nothing: one changes, one goes with its marker, one comes.
  const bucket = 'things';
  b.records.stop();
  await startNats({ port: nats.port });
  await expect.poll(() => a.records.state.kind, soon).toBe('following');
  await a.records.replace('k1', text('new'), revisions[0] ?? 0);
  await a.records.remove('k2', revisions[1] ?? 0);
  await a.records.create('k4', text('k4'));
  const late = connectBus({ url: nats.url, name: 'test', clock: systemClock, random: () => 0, emit: () => {} });
  cleanups.push(() => late.close());
  const purged = new Promise<void>((resolve) => {
    const detach = late.attach((connection) => {
      void connection
        .jetstreamManager()
        .then((jsm) => jsm.streams.purge(`KV_${bucket}`, { filter: `$KV.${bucket}.k2` }))
        .then(() => resolve());
      return () => {};
    });
    cleanups.push(detach);
  });
  await purged;
  b.records.start();
  await expect.poll(() => b.told, soon).toEqual(['k1@4', 'k4@6', 'k2 gone', 'following']);
  expect(b.now()).toEqual({ k1: 'new', k3: 'k3', k4: 'k4' });
  expect(a.now()).toEqual(b.now());
});

it('what a purge of the stream took is told as removed when it is asked for', async () => {
  const { url } = await startNats();
  const { records, known, told } = follow(url);
  await expect.poll(() => records.state.kind, soon).toBe('following');
  await records.create('k1', text('one'));
  await records.create('k2', text('two'));
  const other = connectBus({ url, name: 'test', clock: systemClock, random: () => 0, emit: () => {} });
  cleanups.push(() => other.close());
  await new Promise<void>((resolve) => {
    other.attach((connection) => {
      void connection
        .jetstreamManager()
        .then((jsm) => jsm.streams.purge('KV_things'))
        .then(() => resolve());
      return () => {};
    });
  });
  expect([...known.keys()]).toEqual(['k1', 'k2']);
  expect(await records.read('k1')).toBeUndefined();
  expect(await records.read('k1')).toBeUndefined();
  expect([...known.keys()]).toEqual(['k2']);
  expect(told.filter((line) => line === 'k1 gone')).toHaveLength(1);
  await records.create('k1', text('anew'));
  expect(known.get('k1')).toBe('anew');
});

it('a record changed between looking at the bucket and following it is never told as removed', async () => {
  const { url } = await startNats();
  const a = follow(url);
  await expect.poll(() => a.records.state.kind, soon).toBe('following');
  for (const key of ['k1', 'k2']) await a.records.create(key, text('old'));
  const changes = [async () => {}, async () => void (await a.records.replace('k1', text('new'), 1))];
  const b = follow(url, {}, async () => changes.shift()?.());
  await expect.poll(() => b.records.state.kind, soon).toBe('following');
  b.records.stop();
  b.records.start();
  await expect.poll(() => b.told.slice(-2), soon).toEqual(['k1@3', 'following']);
  expect(b.told).not.toContain('k1 gone');
});

it('a bucket without room says so, and is followed all the same', async () => {
  const { url } = await startNats();
  const { records, told } = follow(url, { maxBytes: 8192, maxRecordBytes: 4096 });
  await expect.poll(() => records.state.kind, soon).toBe('following');
  const fill = async () => {
    for (let n = 0; ; n++) await records.create(`k${n}`, Buffer.alloc(3000));
  };
  await expect(fill()).rejects.toMatchObject({
    code: Code.RESOURCE_EXHAUSTED,
    reason: Reason.STORE_FULL,
    message: 'NATS has no room for it: maximum bytes exceeded',
  });
  const before = told.length;
  await expect(records.create('more', Buffer.alloc(3000))).rejects.toMatchObject({ reason: Reason.STORE_FULL });
  const first = await records.read('k0');
  await records.remove('k0', first?.revision ?? 0);
  await expect.poll(() => told.slice(before), soon).toEqual(['k0 gone']);
});

it('a server that is stalled: a write ends as UNAVAILABLE, and what became of it can be read', async () => {
  const nats = await startNats();
  const { records, known } = follow(nats.url);
  await expect.poll(() => records.state.kind, soon).toBe('following');
  let revision = await records.create('k', text('one'));
  nats.pause();
  const again = async () => {
    revision = await records.replace('k', text('one'), revision); // the signal takes a moment
  };
  await expect.poll(() => again().catch(({ code }) => code), soon).toBe(Code.UNAVAILABLE);
  await expect.poll(() => records.state.kind, soon).toBe('waiting');
  nats.resume();
  await expect.poll(() => records.state.kind, soon).toBe('following');
  const after = await records.read('k');
  const happened = after?.revision !== revision;
  const write = records.replace('k', text('two'), revision);
  if (happened) await expect(write).rejects.toMatchObject(changedMeanwhile);
  else expect(await write).toBeGreaterThan(revision);
  await expect.poll(() => known.get('k'), soon).toBe(happened ? 'one' : 'two');
});

it('a store that was lost, or a bucket somebody deleted, is followed as it is then', async () => {
  const nats = await startNats();
  const { records, now, told } = follow(nats.url);
  await expect.poll(() => records.state.kind, soon).toBe('following');
  await records.create('k1', text('old'));
  await records.create('k2', text('old'));
  await nats.kill();
  const other = await startNats({ port: nats.port, store: 'another' });
  await expect.poll(() => told.at(-1), soon).toBe('following');
  expect(now()).toEqual({});
  expect(await records.create('k2', text('new'))).toBe(1);
  expect(now()).toEqual({ k2: 'new' });
  const bus = connectBus({ url: other.url, name: 'operator', clock: systemClock, random: () => 0, emit: () => {} });
  cleanups.push(() => bus.close());
  const deleted = new Promise((resolve) => {
    bus.attach((connection) => {
      void connection.jetstreamManager().then((jsm) => jsm.streams.delete('KV_things').then(resolve));
      return () => {};
    });
  });
  await deleted;
  await expect(records.replace('k2', text('x'), 1)).rejects.toMatchObject({ code: Code.UNAVAILABLE });
  await expect.poll(now, soon).toEqual({});
  await expect.poll(() => records.state.kind, soon).toBe('following');
});

it('many records are all told before it follows, and each once', async () => {
  const { url } = await startNats();
  const a = follow(url);
  await expect.poll(() => a.records.state.kind, soon).toBe('following');
  for (let i = 0; i < 2000; i += 250)
    await Promise.all(Array.from({ length: 250 }, (_, n) => a.records.create(`k.${i + n}`, text('x'.repeat(300)))));
  const late = follow(url);
  await expect.poll(() => late.told.at(-1), soon).toBe('following');
  expect(late.told).toHaveLength(2001);
});

it('settings are brought up to date; what the server cannot do is said', async () => {
  const { url } = await startNats();
  const a = follow(url);
  await expect.poll(() => a.records.state.kind, soon).toBe('following');
  await expect(a.records.create('k', Buffer.alloc(70_000))).rejects.toMatchObject({ reason: Reason.MESSAGE_TOO_LARGE });
  const larger = follow(url, { maxRecordBytes: 1 << 17 });
  await expect.poll(() => larger.records.state.kind, soon).toBe('following');
  expect(await larger.records.create('k', Buffer.alloc(70_000))).toBe(1);
  await expect(larger.records.create('j', Buffer.alloc(2 << 20))).rejects.toMatchObject({ reason: Reason.MESSAGE_TOO_LARGE });
  const thrice = follow(url, { replicaCount: 3 });
  await expect.poll(() => thrice.records.state, soon).toMatchObject({ kind: 'unavailable', cause: expect.stringContaining('replicas') });
  await expect(thrice.records.create('k', text('x'))).rejects.toMatchObject({ reason: Reason.STORE_UNAVAILABLE });
  const without = await startNats({ jetstream: false, store: 'none' });
  const off = follow(without.url);
  await expect.poll(() => off.records.state, soon).toMatchObject({ kind: 'unavailable', cause: expect.stringContaining('--jetstream') });
});

it('a bucket made by somebody else, that forgets with time, forgets no more', async () => {
  const { url } = await startNats();
  const connection = await connect({ servers: url });
  cleanups.push(() => connection.close());
  const jsm = await connection.jetstreamManager();
  const limits = { max_age: 3600e9, max_msgs: 10, discard: DiscardPolicy.New };
  await jsm.streams.add({ name: 'KV_things', subjects: ['$KV.things.>'], allow_rollup_hdrs: true, deny_delete: true, ...limits });
  const a = follow(url);
  await expect.poll(() => a.records.state, soon).toEqual({ kind: 'following' });
  expect((await jsm.streams.info('KV_things')).config).toMatchObject({ max_age: 0, max_msgs: -1, max_msgs_per_subject: 1 });
});

it.each(['2.9.10', '2.10.29', ''])('a server of version %j is too old, and that is said', async (version) => {
  const connection = { info: { version } } as Parameters<typeof prepareBucket>[0];
  await expect(prepareBucket(connection, {} as never, SETTINGS)).rejects.toThrow('expected nats-server 2.11 or newer');
});
