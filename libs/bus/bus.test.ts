/** The door against a real nats-server: killed, restarted, stalled, asking for a password. */
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { sampleBeat } from '../../test/support/sample-beat.js';
import { type NatsServer, startNatsServer } from '../local-mesh/nats-server.js';
import { findNatsServer } from '../local-mesh/nats-server-find.js';
import { systemClock, systemRandom } from '../runtime/index.js';
import { BeatPublisher } from './beat-publisher.js';
import { type Bus, type BusOptions, connectBus } from './bus.js';
import { sendControl, serveControl } from './control.js';
import type { BusEvent } from './events.js';
import { Membership } from './membership.js';
import type { MembershipEvent } from './membership-events.js';
import { callRoll, MembershipSubscriber } from './membership-subscriber.js';
import { registerService } from './register-service.js';

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function startNats(port = 0, args: string[] = []): Promise<NatsServer> {
  const cacheDir = path.resolve(import.meta.dirname, '../../.cache');
  const { path: file } = await findNatsServer({ env: process.env, cacheDir, log: () => {} });
  const server = await startNatsServer({ path: file, port, args });
  cleanups.push(() => server.stop());
  return server;
}

/** Events as they come, with a promise for one that is still to come. */
class EventLog<E extends { readonly type: string }> {
  readonly all: E[] = [];
  readonly #waiting = new Set<() => void>();

  readonly emit = (event: E): void => {
    this.all.push(event);
    for (const check of this.#waiting) check();
  };

  until(holds: (events: readonly E[]) => boolean): Promise<void> {
    return new Promise((resolve) => {
      const check = () => {
        if (!holds(this.all)) return;
        this.#waiting.delete(check);
        resolve();
      };
      this.#waiting.add(check);
      check();
    });
  }

  /** The first event of this type not yet waited for. */
  async next<T extends E['type']>(type: T): Promise<Extract<E, { type: T }>> {
    const seen = this.#taken.get(type) ?? 0;
    this.#taken.set(type, seen + 1);
    const ofType = () => this.all.filter((event): event is Extract<E, { type: T }> => event.type === type);
    await this.until(() => ofType().length > seen);
    const event = ofType()[seen];
    if (!event) throw new Error('unreachable');
    return event;
  }
  readonly #taken = new Map<string, number>();
}

function openBus(url: string, more: Partial<BusOptions> = {}): { bus: Bus; events: EventLog<BusEvent> } {
  const events = new EventLog<BusEvent>();
  const bus = connectBus({ url, name: 'test', clock: systemClock, random: () => 0, emit: events.emit, ...more });
  cleanups.push(() => bus.close());
  return { bus, events };
}

function openNode(bus: Bus, nodeId: string, incarnation = '1000-aaaaaa', more: { intervalMs?: number } = {}): BeatPublisher {
  const read = () => ({ ...sampleBeat(), nodeId, incarnation });
  const node = new BeatPublisher({ bus, clock: systemClock, random: systemRandom, read, ...more });
  node.start();
  cleanups.push(() => node.stop());
  return node;
}

function openMembership(
  bus: Bus,
  more: { intervalMs?: number } = {},
): { membership: Membership; events: EventLog<MembershipEvent>; busEvents: EventLog<BusEvent> } {
  const events = new EventLog<MembershipEvent>();
  const busEvents = new EventLog<BusEvent>();
  const membership = new Membership({ clock: systemClock, emit: events.emit, lagMs: () => 0, rollCall: () => callRoll(bus), ...more });
  const subscriber = new MembershipSubscriber({ bus, clock: systemClock, membership, emit: busEvents.emit });
  subscriber.start();
  cleanups.push(() => subscriber.stop());
  return { membership, events, busEvents };
}

/** The next message on a subject, as text. */
function received(bus: Bus, subject: string): Promise<string> {
  return new Promise((resolve) => {
    const end = bus.subscribe(subject, (message) => {
      end();
      resolve(Buffer.from(message.data).toString());
    });
  });
}

describe('connectBus()', () => {
  it('does not wait for NATS, and is whole once NATS is there', async () => {
    const gone = await startNats();
    await gone.stop();
    const { bus, events } = openBus(gone.url);
    const message = received(bus, 'greeting');
    expect(bus.connected).toBe(false);
    expect(bus.publish('greeting', 'lost')).toBe(false);
    await expect(bus.request('greeting', '', 100)).rejects.toMatchObject({ code: 14, reason: 'CONNECTION_LOST' });
    expect((await events.next('busConnectFailed')).cause).toContain('ECONNREFUSED');
    await startNats(gone.port);
    await events.next('busConnected');
    expect(bus.connected).toBe(true);
    bus.publish('greeting', 'hello');
    expect(await message).toBe('hello');
  });

  it('comes back with its subscriptions after the server was killed, and keeps nothing for later', async () => {
    const first = await startNats();
    const { bus, events } = openBus(first.url);
    await events.next('busConnected');
    const message = received(bus, 'greeting');
    const changes: boolean[] = [];
    bus.onLink((connected) => changes.push(connected));
    await first.kill();
    await events.next('busDisconnected');
    expect(bus.publish('greeting', 'dropped')).toBe(false);
    await startNats(first.port);
    expect((await events.next('busReconnected')).awayMs).toBeGreaterThan(0);
    bus.publish('greeting', 'kept');
    expect(await message).toBe('kept');
    expect(changes).toEqual([true, false, true]);
  });

  it('notices a stalled server by its pings, leaks nothing while it stalls, and returns', async () => {
    const server = await startNats();
    const { bus, events } = openBus(server.url, { pingIntervalMs: 100 });
    await events.next('busConnected');
    const sockets = () => process.getActiveResourcesInfo().filter((name) => name.startsWith('TCPSocket')).length;
    const socketsBefore = sockets();
    server.pause();
    await events.next('busStale');
    await events.next('busDisconnected');
    expect((await events.next('busConnectFailed')).cause).toContain('no greeting');
    server.resume();
    await events.next('busReconnected');
    expect(sockets()).toBeLessThanOrEqual(socketsBefore);
    expect(bus.connected).toBe(true);
  });

  it('survives a handler that throws, and says so', async () => {
    const server = await startNats();
    const { bus, events } = openBus(server.url);
    await events.next('busConnected');
    bus.subscribe('bad', () => {
      throw new Error('oops');
    });
    const message = received(bus, 'good');
    bus.publish('bad', '');
    bus.publish('good', 'fine');
    expect(await message).toBe('fine');
    expect(await events.next('busHandlerFailed')).toMatchObject({ subject: 'bad', error: new Error('oops') });
  });

  it('needs the right password, from the options or the URL, and keeps trying with a wrong one', async () => {
    const server = await startNats(0, ['--user', 'me', '--pass', 'secret']);
    const wrong = openBus(server.url, { credentials: { kind: 'user', user: 'me', password: 'guess' } });
    expect((await wrong.events.next('busConnectFailed')).cause).toMatch(/authorization/i);
    await openBus(server.url, { credentials: { kind: 'user', user: 'me', password: 'secret' } }).events.next('busConnected');
    await openBus(server.url.replace('//', '//me:secret@')).events.next('busConnected');
    expect(wrong.bus.connected).toBe(false);
  });

  it('takes the next server of several when one is down', async () => {
    const gone = await startNats();
    await gone.stop();
    const server = await startNats();
    const { events } = openBus(`${gone.url},${server.url}`);
    expect((await events.next('busConnected')).server).toBe(`127.0.0.1:${server.port}`);
  });

  it('close() ends a bus that never found a server', async () => {
    const gone = await startNats();
    await gone.stop();
    const { bus, events } = openBus(gone.url);
    await events.next('busConnectFailed');
    await bus.close();
    await bus.close();
  });
});

describe('membership over NATS', () => {
  it('a router that starts late knows fifty nodes within 200 ms', async () => {
    const server = await startNats();
    const nodes = openBus(server.url);
    await nodes.events.next('busConnected');
    for (let i = 0; i < 50; i++) openNode(nodes.bus, `n${i}`);
    await nodes.bus.flush();
    let bestMs = Number.POSITIVE_INFINITY;
    // The best of some: this machine may be busy with other tests.
    for (let i = 0; i < 10 && bestMs >= 200; i++) {
      const startedAt = systemClock.now();
      const { membership, events } = openMembership(openBus(server.url).bus);
      await events.until(() => membership.members.size === 50);
      bestMs = Math.min(bestMs, systemClock.now() - startedAt);
    }
    expect(bestMs).toBeLessThan(200);
  });

  it('a node that stops is gone at once; one that started again is a new life', async () => {
    const server = await startNats();
    const { bus } = openBus(server.url);
    const { membership, events } = openMembership(bus);
    const a = openNode(bus, 'a');
    const b = openNode(bus, 'b');
    await events.until(() => membership.members.size === 2);
    await a.stop();
    expect((await events.next('memberLeft')).member.nodeId).toBe('a');
    openNode(bus, 'b', '2000-aaaaaa');
    expect(await events.next('memberRestarted')).toMatchObject({ previousIncarnation: '1000-aaaaaa' });
    await b.stop(); // the old life's leave
    await bus.flush();
    expect([...membership.members.keys()]).toEqual(['b']);
  });

  it('keeps its members while NATS is killed and restarted, and hears them on the return', async () => {
    const server = await startNats();
    const { bus, events: busEvents } = openBus(server.url);
    const { membership, events } = openMembership(bus);
    for (const nodeId of ['a', 'b', 'c']) openNode(bus, nodeId);
    await events.until(() => membership.members.size === 3);
    const seqBefore = membership.get('a')?.beat.seq ?? 0;
    await server.kill();
    await busEvents.next('busDisconnected');
    expect(membership.frozen).toBe(true);
    await startNats(server.port);
    await busEvents.next('busReconnected');
    const heard = received(bus, 'dmesh.v1.node.a.beat');
    await heard;
    await bus.flush();
    expect(membership.get('a')?.beat.seq).toBeGreaterThan(seqBefore);
    expect(events.all.filter((event) => event.type === 'memberSuspected' || event.type === 'memberGone')).toEqual([]);
  });

  it('holds still while the server stalls for a moment, and takes the held-back beats for what they are', async () => {
    const server = await startNats();
    const { bus } = openBus(server.url);
    const fast = { intervalMs: 100 };
    const { membership, events } = openMembership(bus, fast);
    for (const nodeId of ['a', 'b', 'c']) openNode(bus, nodeId, '1000-aaaaaa', fast);
    await events.until(() => membership.members.size === 3);
    await events.next('membershipThawed');
    server.pause();
    expect(await events.next('membershipFrozen')).toMatchObject({ cause: 'massSilence', silentCount: 3 });
    server.resume();
    await events.next('membershipThawed');
    expect(bus.connected).toBe(true);
    expect([...membership.members.values()].map((member) => member.state)).toEqual(['alive', 'alive', 'alive']);
    expect(events.all.filter((event) => event.type === 'memberSuspected')).toEqual([]);
  });

  it('reports garbage and beats in a foreign name, and goes on', async () => {
    const server = await startNats();
    const { bus, events } = openBus(server.url);
    await events.next('busConnected');
    const { membership, busEvents } = openMembership(bus);
    bus.publish('dmesh.v1.node.a.beat', 'garbage');
    bus.publish('dmesh.v1.node.a.beat', JSON.stringify(sampleBeat({ nodeId: 'b' })));
    bus.publish('dmesh.v1.node.a.leave', JSON.stringify({ nodeId: 'b', incarnation: '1-a' }));
    bus.publish('dmesh.v1.node.a.beat', JSON.stringify(sampleBeat({ nodeId: 'a' })));
    await busEvents.until((all) => all.length === 3);
    await expect.poll(() => [...membership.members.keys()]).toEqual(['a']);
    expect(busEvents.all).toMatchObject([{ fault: 'not JSON' }, { fault: 'nodeId is b' }, { fault: 'nodeId is b' }]);
  });
});

describe('control', () => {
  it('carries an order to one node and its answer back', async () => {
    const server = await startNats();
    const { bus, events } = openBus(server.url);
    await events.next('busConnected');
    const orders: string[] = [];
    serveControl({
      bus,
      nodeId: 'a',
      handle: (action) => {
        if (action === 'reload') throw new Error('secret detail');
        orders.push(action);
      },
    });
    expect(await sendControl({ bus, nodeId: 'a', action: 'drain' })).toEqual({ ok: true });
    expect(await sendControl({ bus, nodeId: 'a', action: 'reload' })).toEqual({ error: 'internal error' });
    expect(orders).toEqual(['drain']);
    const answer = await bus.request('dmesh.v1.node.a.control', '{"action":"explode"}', 1000);
    expect(Buffer.from(answer).toString()).toContain('drain, resume, reload');
  });

  it('says which of unknown node, no answer and no NATS it was', async () => {
    const server = await startNats();
    const { bus, events } = openBus(server.url);
    await events.next('busConnected');
    await expect(sendControl({ bus, nodeId: 'b', action: 'drain' })).rejects.toMatchObject({ code: 5, reason: 'UNKNOWN_NODE' });
    serveControl({ bus, nodeId: 'a', handle: () => new Promise(() => {}) });
    await expect(sendControl({ bus, nodeId: 'a', action: 'drain', timeoutMs: 50 })).rejects.toMatchObject({ code: 4 });
    const underway = expect(sendControl({ bus, nodeId: 'a', action: 'drain' })).rejects.toMatchObject({ code: 14 });
    await bus.flush();
    await server.kill();
    await underway;
    await events.next('busDisconnected');
    await expect(sendControl({ bus, nodeId: 'a', action: 'drain' })).rejects.toMatchObject({ code: 14 });
  });
});

describe('registerService()', () => {
  it('shows on NATS’s list of services with its metadata, again after a restart, and no more when ended', async () => {
    const server = await startNats();
    const { bus, events } = openBus(server.url);
    const end = registerService(
      bus,
      { name: 'dmesh-node', version: '0.1.0', description: 'one GPU', metadata: () => ({ node_id: 'a', grpc_addr: '127.0.0.1:1' }) },
      events.emit,
    );
    const info = async () => JSON.parse(Buffer.from(await bus.request('$SRV.INFO.dmesh-node', '', 1000)).toString());
    await events.next('busConnected');
    expect(await info()).toMatchObject({
      type: 'io.nats.micro.v1.info_response',
      name: 'dmesh-node',
      version: '0.1.0',
      metadata: { node_id: 'a', grpc_addr: '127.0.0.1:1' },
    });
    expect(JSON.parse(Buffer.from(await bus.request('$SRV.PING', '', 1000)).toString())).toMatchObject({ name: 'dmesh-node' });
    await server.kill();
    await startNats(server.port);
    await events.next('busReconnected');
    expect(await info()).toMatchObject({ metadata: { node_id: 'a' } });
    end();
    await bus.flush();
    await expect(bus.request('$SRV.PING', '', 1000)).rejects.toMatchObject({ code: 5 });
  });
});
