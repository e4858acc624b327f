import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from '../../test/support/manual-clock.js';
import { PlayedBus } from '../../test/support/played-bus.js';
import { type NatsServer, startNatsServer } from '../local-mesh/nats-server.js';
import { findNatsServer } from '../local-mesh/nats-server-find.js';
import { systemClock, systemRandom } from '../runtime/index.js';
import { type Bus, connectBus } from './bus.js';
import type { BusEvent } from './events.js';
import { type Replica, ReplicaAnnouncer, ReplicaDirectory, type ReplicaEvent } from './replicas.js';

const BEATS = 'dmesh.v1.jobs.*.beat';
const LEAVES = 'dmesh.v1.jobs.*.leave';
const ROLL_CALL = 'dmesh.v1.jobs.roll-call';
const replica = (id: string, more: Partial<Replica> = {}): Replica => ({ id, incarnation: '1000-aaaaaa', address: '127.0.0.1:1', ...more });

let clock: ManualClock;
let bus: PlayedBus;
let events: (ReplicaEvent | BusEvent)[];
let directory: ReplicaDirectory;
let changeCount: number;

beforeEach(() => {
  clock = new ManualClock();
  bus = new PlayedBus();
  events = [];
  changeCount = 0;
  directory = new ReplicaDirectory({ bus, clock, service: 'jobs', emit: (event) => events.push(event), onChange: () => changeCount++ });
});

const beat = (id: string, more: Partial<Replica> = {}) => bus.deliver(`dmesh.v1.jobs.${id}.beat`, replica(id, more), BEATS);
const live = () => directory.live().map(({ id }) => id);
/** These beat once a second for so long; NATS brings our own roll call back. */
async function hear(ids: readonly string[], seconds: number): Promise<void> {
  for (let i = 0; i < seconds; i++) {
    await clock.advance(1000);
    bus.deliver(ROLL_CALL, '');
    for (const id of ids) beat(id);
  }
}

describe('ReplicaAnnouncer', () => {
  const announcer = () => new ReplicaAnnouncer({ bus, clock, random: () => 0.5, read: () => ({ service: 'jobs', ...replica('a') }) });

  it('speaks at once, every second, when the roll is called, and when NATS is back', async () => {
    announcer().start();
    await clock.advance(3);
    await clock.advance(1000);
    expect(bus.published).toEqual(Array(2).fill({ subject: 'dmesh.v1.jobs.a.beat', text: JSON.stringify(replica('a')) }));
    bus.deliver(ROLL_CALL, '');
    await clock.advance(3);
    expect(bus.published).toHaveLength(3);
    bus.link(false);
    await clock.advance(5000);
    bus.link(true);
    await clock.advance(3);
    expect(bus.published).toHaveLength(4);
  });

  it('stop() says goodbye and ends everything', async () => {
    const a = announcer();
    a.start();
    await a.stop();
    await clock.advance(5000);
    expect(bus.published).toEqual([{ subject: 'dmesh.v1.jobs.a.leave', text: JSON.stringify({ id: 'a', incarnation: '1000-aaaaaa' }) }]);
    expect([clock.pendingCount, bus.handlers.size, bus.listeners.size]).toEqual([0, 0, 0]);
  });
});

describe('ReplicaDirectory', () => {
  it('calls the roll at once and is settled a second later', async () => {
    directory.start();
    expect(bus.published).toEqual([{ subject: ROLL_CALL, text: '' }]);
    beat('b');
    beat('a');
    expect(live()).toEqual(['a', 'b']);
    await clock.advance(999);
    expect(directory.settledAt).toBeUndefined();
    await clock.advance(251);
    await directory.whenSettled;
    expect(directory.settledAt).toBe(1000);
  });

  it('is not settled before NATS was there for a second', async () => {
    bus.connected = false;
    directory.start();
    await clock.advance(60_000);
    expect(directory.settledAt).toBeUndefined();
    bus.link(true);
    await clock.advance(1250);
    expect(directory.settledAt).toBe(61_000);
  });

  it('forgets whom it has not heard for 3.5 s, not before', async () => {
    directory.start();
    await hear(['a', 'b'], 6);
    await hear(['b'], 3);
    await clock.advance(500);
    expect(live()).toEqual(['a', 'b']);
    bus.deliver(ROLL_CALL, '');
    await clock.advance(250);
    expect(live()).toEqual(['b']);
    expect(events.at(-1)).toEqual({ type: 'replicaGone', service: 'jobs', replica: replica('a'), cause: 'silent' });
  });

  it('forgets who says goodbye at once; a goodbye of an earlier life changes nothing', () => {
    directory.start();
    beat('a', { incarnation: '2000-aaaaaa' });
    bus.deliver('dmesh.v1.jobs.a.leave', { id: 'a', incarnation: '1000-aaaaaa' }, LEAVES);
    expect(live()).toEqual(['a']);
    bus.deliver('dmesh.v1.jobs.a.leave', { id: 'a', incarnation: '2000-aaaaaa' }, LEAVES);
    expect(live()).toEqual([]);
  });

  it('judges nobody without a link, and gives everybody 5 s after it', async () => {
    directory.start();
    await hear(['a', 'b'], 6);
    bus.link(false);
    await clock.advance(60_000);
    expect(live()).toEqual(['a', 'b']);
    bus.link(true);
    await hear(['b'], 4);
    expect(live()).toEqual(['a', 'b']);
    await hear(['b'], 1);
    await clock.advance(250);
    expect(live()).toEqual(['b']);
  });

  it('judges nobody while not even its own roll call comes back', async () => {
    directory.start();
    await hear(['a', 'b'], 6);
    await clock.advance(5000);
    expect(bus.published.filter(({ subject }) => subject === ROLL_CALL).length).toBeGreaterThan(4);
    expect(live()).toEqual(['a', 'b']);
    bus.deliver(ROLL_CALL, '');
    await hear(['b'], 4);
    expect(live()).toEqual(['a', 'b']);
    await hear(['b'], 2);
    expect(live()).toEqual(['b']);
  });

  it('knows a new life by its id, and an earlier one only when that is gone', async () => {
    directory.start();
    await hear(['a'], 6);
    beat('a', { incarnation: '3000-aaaaaa', address: '127.0.0.1:3' });
    beat('a', { incarnation: '2000-aaaaaa', address: '127.0.0.1:2' });
    expect(directory.live()).toEqual([replica('a', { incarnation: '3000-aaaaaa', address: '127.0.0.1:3' })]);
    expect(events.at(-1)).toMatchObject({ type: 'replicaRestarted', previousIncarnation: '1000-aaaaaa' });
    for (let i = 0; i < 5; i++) {
      await clock.advance(1000);
      beat('a', { incarnation: '2000-aaaaaa', address: '127.0.0.1:2' });
    }
    expect(directory.live()).toEqual([replica('a', { incarnation: '2000-aaaaaa', address: '127.0.0.1:2' })]);
  });

  it('tells of changes only', async () => {
    directory.start();
    beat('a');
    const before = directory.live();
    await hear(['a'], 3);
    expect([changeCount, directory.live()]).toEqual([1, before]);
    beat('a', { address: '127.0.0.1:2' });
    expect(changeCount).toBe(2);
    beat('a', { address: '127.0.0.1:2', draining: true });
    expect([changeCount, directory.live()]).toEqual([3, [replica('a', { address: '127.0.0.1:2', draining: true })]]);
  });

  it.each([
    ['garbage', 'not JSON'],
    ['null', 'replica: null'],
    [{ ...replica('a'), id: 'x.y' }, 'id: string'],
    [replica('b'), 'id is b'],
    [{ ...replica('a'), incarnation: '' }, 'incarnation: string'],
    [{ ...replica('a'), address: 'nowhere' }, 'address: string'],
    [{ ...replica('a'), draining: 'yes' }, 'draining: string'],
  ])('%j is no announcement, and an event', (payload, fault) => {
    directory.start();
    bus.deliver('dmesh.v1.jobs.a.beat', payload, BEATS);
    expect(events).toEqual([{ type: 'beatRejected', subject: 'dmesh.v1.jobs.a.beat', fault }]);
    expect(live()).toEqual([]);
  });

  it('stop() leaves nothing behind', () => {
    directory.start();
    directory.stop();
    expect([clock.pendingCount, bus.handlers.size, bus.listeners.size]).toEqual([0, 0, 0]);
  });
});

describe('over NATS', () => {
  const cleanups: (() => Promise<void> | void)[] = [];
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });

  async function startNats(port = 0): Promise<NatsServer> {
    const cacheDir = path.resolve(import.meta.dirname, '../../.cache');
    const { path: file } = await findNatsServer({ env: process.env, cacheDir, log: () => {} });
    const server = await startNatsServer({ path: file, port });
    cleanups.push(() => server.stop());
    return server;
  }
  function open(url: string): Bus {
    const opened = connectBus({ url, name: 'test', clock: systemClock, random: () => 0, emit: () => {} });
    cleanups.push(() => opened.close());
    return opened;
  }
  function announce(url: string, id: string): ReplicaAnnouncer {
    const read = () => ({ service: 'jobs' as const, ...replica(id) });
    const announcer = new ReplicaAnnouncer({ bus: open(url), clock: systemClock, random: systemRandom, read });
    announcer.start();
    cleanups.push(() => announcer.stop());
    return announcer;
  }
  function follow(url: string): ReplicaDirectory {
    const followed = new ReplicaDirectory({ bus: open(url), clock: systemClock, service: 'jobs', emit: () => {} });
    followed.start();
    cleanups.push(() => followed.stop());
    return followed;
  }

  it('a starter knows everybody once settled, and who left is gone; all are still there after NATS was killed', async () => {
    const server = await startNats();
    const [a] = [announce(server.url, 'a'), announce(server.url, 'b'), announce(server.url, 'c')];
    const followed = follow(server.url);
    await followed.whenSettled;
    const ids = () => followed.live().map(({ id }) => id);
    await expect.poll(ids).toEqual(['a', 'b', 'c']);
    await a?.stop();
    await expect.poll(ids).toEqual(['b', 'c']);
    await server.kill();
    await startNats(server.port);
    announce(server.url, 'd');
    await expect.poll(ids, { timeout: 5000 }).toEqual(['b', 'c', 'd']);
  });
});
