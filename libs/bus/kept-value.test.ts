/** A shared setting against a real nats-server: with JetStream, without, killed, and with its store lost. */
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Code, Reason } from '#core';
import { type NatsServer, startNatsServer } from '../local-mesh/nats-server.js';
import { findNatsServer } from '../local-mesh/nats-server-find.js';
import { systemClock } from '../runtime/index.js';
import { connectBus } from './bus.js';
import { type KeptState, KeptValue } from './kept-value.js';

const cleanups: (() => Promise<void> | void)[] = [];
let dir = '';
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'dmesh-kept-'));
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

interface Follower {
  readonly kept: KeptValue;
  readonly told: string[];
  readonly states: KeptState[];
}

function follow(url: string): Follower {
  const bus = connectBus({ url, name: 'test', clock: systemClock, random: () => 0, emit: () => {} });
  const told: string[] = [];
  const states: KeptState[] = [];
  const kept = new KeptValue({
    bus,
    clock: systemClock,
    bucket: 'settings',
    key: 'one',
    description: 'of a test',
    onValue: (data, revision) => told.push(`${revision} ${data === undefined ? 'none' : Buffer.from(data).toString()}`),
    onState: (state) => states.push(state),
  });
  kept.start();
  cleanups.push(async () => {
    kept.stop();
    await bus.close();
  });
  return { kept, told, states };
}

const text = (value: string) => Buffer.from(value);
const soon = { timeout: 8000, interval: 10 };

it('who follows hears what others write, and who comes later hears the newest', async () => {
  const { url } = await startNats();
  const [a, b] = [follow(url), follow(url)];
  await expect.poll(() => [a.told, b.told], soon).toEqual([['0 none'], ['0 none']]);
  expect(await a.kept.replace(text('x'), 0)).toBe(1);
  expect(a.told).toEqual(['0 none', '1 x']); // the writer knows at once
  await expect.poll(() => b.told, { timeout: 1000, interval: 10 }).toEqual(['0 none', '1 x']);
  expect(await b.kept.replace(text('y'), 1)).toBe(2);
  await expect.poll(() => a.told, soon).toEqual(['0 none', '1 x', '2 y']);
  const late = follow(url);
  await expect.poll(() => late.told, soon).toEqual(['2 y']);
});

it('of two who change the same revision one is refused, and nothing is lost', async () => {
  const { url } = await startNats();
  const [a, b] = [follow(url), follow(url)];
  await expect.poll(() => [a.told.length, b.told.length], soon).toEqual([1, 1]);
  const results = await Promise.allSettled([a.kept.replace(text('a'), 0), b.kept.replace(text('b'), 0)]);
  expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  const refused = results.find((result) => result.status === 'rejected');
  expect(refused?.reason).toMatchObject({ code: Code.ABORTED, reason: Reason.CHANGED_MEANWHILE });
  await expect(a.kept.replace(text('c'), 7)).rejects.toMatchObject({ reason: Reason.CHANGED_MEANWHILE });
});

it('without JetStream it says once what to switch on, and refuses a change with the same words', async () => {
  const { url } = await startNats({ jetstream: false });
  const { kept, states, told } = follow(url);
  await expect.poll(() => states, soon).toMatchObject([{ kind: 'unavailable' }]);
  await expect(kept.replace(text('x'), 0)).rejects.toMatchObject({
    code: Code.FAILED_PRECONDITION,
    reason: Reason.STORE_UNAVAILABLE,
    message: expect.stringContaining('--jetstream'),
  });
  expect(told).toEqual([]);
});

it('goes on after NATS was killed and came back with its store', async () => {
  const nats = await startNats();
  const [a, b] = [follow(nats.url), follow(nats.url)];
  await expect.poll(() => [a.told.length, b.told.length], soon).toEqual([1, 1]);
  await a.kept.replace(text('x'), 0);
  await nats.kill();
  await expect.poll(() => a.states.at(-1), soon).toEqual({ kind: 'waiting' });
  await expect(a.kept.replace(text('y'), 1)).rejects.toMatchObject({ code: Code.UNAVAILABLE });
  await startNats({ port: nats.port });
  await expect.poll(() => [a.states.at(-1), b.states.at(-1)], soon).toEqual([{ kind: 'following' }, { kind: 'following' }]);
  await b.kept.replace(text('y'), 1);
  await expect.poll(() => a.told.at(-1), soon).toBe('2 y');
});

it('a store that is lost is told as such, and can be written anew', async () => {
  const nats = await startNats();
  const a = follow(nats.url);
  await expect.poll(() => a.told, soon).toEqual(['0 none']);
  await a.kept.replace(text('x'), 0);
  await nats.kill();
  await startNats({ port: nats.port, store: 'another' });
  await expect.poll(() => a.told, soon).toEqual(['0 none', '1 x', '0 none']);
  expect(await a.kept.replace(text('x'), 0)).toBe(1);
});
