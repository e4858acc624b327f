import { type AddressInfo, connect as connectSocket, createServer, type Socket } from 'node:net';
import { afterEach, expect, onTestFinished, test, vi } from 'vitest';
import type { BreakerEvent } from '#breaker';
import type { MembershipEvent } from '#bus';
import { generation } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import { Channel, Server } from '#grpc';
import { systemClock } from '#runtime';
import { FAKE_MODEL, FakeNode } from '../../test/support/fake-node.js';
import { Access } from './access.js';
import { FleetNode } from './dispatch/fleet-node.js';
import type { RouterEvent } from './events.js';
import { createRouter, type RouterOptions } from './service.js';

const Service = generation.ImageGenerationServiceService;
const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const room = (minCount: number) => ({ perSlotCount: 0, minCount, classRatio: { high: 1, normal: 1, low: 1 } });

const CONFIG: RouterOptions['config'] = {
  routerId: 'router',
  zone: '',
  cacheBytes: 0,
  order: { shares: { high: 0.6, normal: 0.3, low: 0.1 }, promoteAfterMs: 60_000, patienceFactor: 3 },
  queue: { limits: room(100), timeoutMs: 10_000, noNodesWaitMs: 300 },
  execution: { factor: 5, floorMs: 5000, capMs: 60_000, loadTimeoutMs: 60_000 },
  cost: { priorMs: 1000 },
  slowness: { slowRatio: 1.5, quarantineRatio: 3 },
  retry: { maxNodes: 3, ratio: 0.2, floorCount: 3 },
  hedge: { who: 'off', factor: 2, floorMs: 1000 },
  breaker: { openMs: 30_000 },
  link: { connectTimeoutMs: 10_000, keepaliveMs: 1000 },
};

async function startRouter(nodes: readonly FakeNode[], config: Partial<RouterOptions['config']> = {}) {
  for (const node of nodes) {
    await node.start();
    cleanups.push(() => node.stop());
  }
  const events: (RouterEvent | BreakerEvent)[] = [];
  const router = createRouter({
    config: { ...CONFIG, ...config },
    clock: systemClock,
    random: Math.random,
    emit: (event) => void events.push(event),
    access: new Access({ clock: systemClock, emit: () => {}, needsToken: false, anonymousRatePerSec: 0 }),
    evidence: () => {},
  });
  for (const node of nodes) router.fleet.follow(joined(node));
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20 });
  server.add(Service, router.handlers);
  const channel = new Channel(`127.0.0.1:${await server.listen('127.0.0.1:0')}`, { clock: systemClock });
  cleanups.push(async () => {
    channel.close();
    await server.close();
    router.close();
    // Whatever a test did, nothing may be left behind.
    expect(router.leases.size).toBe(0);
    expect(router.executor.liveCount).toBe(0);
    expect(router.dispatcher.waitingCount).toBe(0);
  });
  const generate = (fields: Partial<generation.GenerateRequest> = {}, options = {}) =>
    channel.unary(Service.generate, generation.GenerateRequest.fromPartial({ prompt: 'a red circle', ...fields }), options);
  return { router, channel, generate, events };
}

function joined(node: FakeNode): MembershipEvent & { type: 'memberJoined' } {
  return { type: 'memberJoined', member: { nodeId: node.nodeId, state: 'alive', beat: node.beat, joinedAt: 0, heardAt: 0 } };
}

function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

const busyWith = (opened: Promise<void>) => (call: { signal: AbortSignal }) =>
  new Promise<void>((resolve, reject) => {
    call.signal.addEventListener('abort', () => reject(call.signal.reason));
    void opened.then(resolve);
  });

test('an idle node draws, and the router adds its figures', async () => {
  const { generate } = await startRouter([new FakeNode('n1')]);
  const { response, trailers } = await generate({ requestId: 'r1' });
  expect(response).toMatchObject({ requestId: 'r1', nodeId: 'n1', attempts: 1, executingMs: 5 });
  expect(trailers).toMatchObject({ 'x-mesh-node': 'n1', 'x-mesh-attempts': '1' });
});

test('a stream tells accepted, started, steps and completed', async () => {
  const { channel } = await startRouter([new FakeNode('n1')]);
  const kinds: string[] = [];
  const request = generation.GenerateRequest.fromPartial({ prompt: 'x', seed: 7n });
  for await (const { event } of channel.serverStream(Service.generateStream, request)) {
    if (event?.$case === 'accepted') expect(event.value.seed).toBe(7n);
    if (event?.$case === 'completed') expect(event.value).toMatchObject({ nodeId: 'n1', attempts: 1 });
    kinds.push(event?.$case ?? 'none');
  }
  expect(kinds).toEqual(['accepted', 'started', 'step', 'step', 'completed']);
});

test('requests beyond the slots wait and start in the order they came, on grants', async () => {
  const node = new FakeNode('n1');
  const first = gate();
  node.draw = busyWith(first.opened);
  const { generate, router } = await startRouter([node]);
  const answers = [generate({ requestId: 'r0' })];
  await expect.poll(() => node.started).toEqual(['r0']);
  for (let i = 1; i <= 5; i++) {
    answers.push(generate({ requestId: `r${i}` }));
    await expect.poll(() => router.dispatcher.waitingCount).toBe(i);
  }
  first.open();
  await Promise.all(answers);
  expect(node.started).toEqual(['r0', 'r1', 'r2', 'r3', 'r4', 'r5']);
  expect(node.grantsUsed.length).toBeGreaterThan(0);
});

test('a waiting caller who leaves is forgotten and a running one frees the slot', async () => {
  const node = new FakeNode('n1');
  node.draw = busyWith(new Promise(() => {}));
  const { generate, router } = await startRouter([node]);
  const [running, waiting] = [new AbortController(), new AbortController()];
  const first = generate({ requestId: 'r1' }, { signal: running.signal });
  await expect.poll(() => node.started).toEqual(['r1']);
  const second = generate({ requestId: 'r2' }, { signal: waiting.signal });
  await expect.poll(() => router.dispatcher.waitingCount).toBe(1);
  waiting.abort();
  await expect(second).rejects.toMatchObject({ code: Code.CANCELLED });
  await expect.poll(() => router.dispatcher.waitingCount).toBe(0);
  running.abort();
  await expect(first).rejects.toMatchObject({ code: Code.CANCELLED });
  await expect.poll(() => router.leases.size).toBe(0);
});

test('streaming callers are told their place', async () => {
  const node = new FakeNode('n1');
  const release = gate();
  node.draw = busyWith(release.opened);
  const { generate, channel } = await startRouter([node]);
  const running = generate({ requestId: 'r1' });
  await expect.poll(() => node.started).toEqual(['r1']);
  const places: number[] = [];
  for await (const { event } of channel.serverStream(Service.generateStream, generation.GenerateRequest.fromPartial({ prompt: 'x' }))) {
    if (event?.$case !== 'queued') continue;
    places.push(event.value.position);
    release.open();
  }
  expect(places[0]).toBe(1);
  await running;
});

test('a node that dies mid-request costs no caller an error', async () => {
  const [dying, sound] = [new FakeNode('n1'), new FakeNode('n2')];
  const release = gate();
  dying.draw = busyWith(new Promise(() => {}));
  sound.draw = busyWith(release.opened);
  const { generate } = await startRouter([dying, sound]);
  const answers = Array.from({ length: 6 }, (_, i) => generate({ requestId: `r${i}` }));
  await expect.poll(() => dying.started.length + sound.started.length).toBe(2);
  await dying.stop();
  release.open();
  const nodes = (await Promise.all(answers)).map(({ response }) => response.nodeId);
  expect(new Set(nodes)).toEqual(new Set(['n2']));
});

test('a busy answer is no fault: the request goes elsewhere and is no attempt', async () => {
  const [busy, idle] = [new FakeNode('n1'), new FakeNode('n2')];
  busy.draw = () => Promise.reject(new StatusError({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.NODE_BUSY, message: 'busy' }));
  const { generate } = await startRouter([busy, idle]);
  const answers = await Promise.all(Array.from({ length: 4 }, () => generate()));
  expect(answers.map(({ response }) => [response.nodeId, response.attempts])).toEqual(Array(4).fill(['n2', 1]));
});

test('a request that breaks two nodes is POISON', async () => {
  const nodes = ['n1', 'n2', 'n3'].map((id) => new FakeNode(id));
  for (const node of nodes) {
    node.draw = () => Promise.reject(new StatusError({ code: Code.UNAVAILABLE, reason: Reason.ENGINE_CRASHED, message: 'engine died' }));
  }
  const { generate } = await startRouter(nodes);
  await expect(generate()).rejects.toMatchObject({ code: Code.ABORTED, reason: Reason.POISON });
  expect(nodes.flatMap((node) => node.started)).toHaveLength(2);
});

test('a bad request never reaches a node', async () => {
  const node = new FakeNode('n1');
  const { generate } = await startRouter([node]);
  await expect(generate({ width: 7, height: 1000, steps: 99, imageCount: 50 })).rejects.toMatchObject({
    code: Code.INVALID_ARGUMENT,
    details: { violations: [{ field: 'width' }, { field: 'height' }, { field: 'steps' }, { field: 'image_count' }] },
  });
  await expect(generate({ model: 'sdxl' })).rejects.toMatchObject({ code: Code.NOT_FOUND, details: { resource: { description: 'fake' } } });
  await expect(generate({ loras: [{ name: 'neon' }] })).rejects.toMatchObject({ code: Code.NOT_FOUND, reason: Reason.UNKNOWN_LORA });
  expect(node.started).toEqual([]);
});

test("the node's own refusal of a request is not tried elsewhere", async () => {
  const nodes = [new FakeNode('n1'), new FakeNode('n2')];
  for (const node of nodes) {
    node.draw = () =>
      Promise.reject(new StatusError({ code: Code.INVALID_ARGUMENT, reason: Reason.PROMPT_TOO_LONG, message: '90 tokens' }));
  }
  const { generate } = await startRouter(nodes);
  await expect(generate()).rejects.toMatchObject({ code: Code.INVALID_ARGUMENT, reason: Reason.PROMPT_TOO_LONG });
  expect(nodes.flatMap((node) => node.started)).toHaveLength(1);
});

test('without any node the answer is NO_NODES with a time to retry', async () => {
  const { generate } = await startRouter([]);
  await expect(generate()).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.NO_NODES, details: { retryDelayMs: 1000 } });
});

test('a full queue refuses with a time to retry', async () => {
  const node = new FakeNode('n1');
  const release = gate();
  node.draw = busyWith(release.opened);
  const { generate, router } = await startRouter([node], { queue: { ...CONFIG.queue, limits: room(1) } });
  const first = generate();
  await expect.poll(() => node.started.length).toBe(1);
  const second = generate();
  await expect.poll(() => router.dispatcher.waitingCount).toBe(1);
  await expect(generate()).rejects.toMatchObject({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.QUEUE_FULL });
  release.open();
  await Promise.all([first, second]);
});

test('waiting too long ends with QUEUE_TIMEOUT, the place and the wait', async () => {
  const node = new FakeNode('n1');
  const release = gate();
  node.draw = busyWith(release.opened);
  const { generate } = await startRouter([node], { queue: { ...CONFIG.queue, timeoutMs: 100 } });
  const first = generate();
  await expect.poll(() => node.started.length).toBe(1);
  await expect(generate()).rejects.toMatchObject({
    code: Code.DEADLINE_EXCEEDED,
    reason: Reason.QUEUE_TIMEOUT,
    details: { metadata: { position: '1' } },
  });
  release.open();
  await first;
});

test('a node that stops answering ends with EXECUTION_TIMEOUT and another one draws', async () => {
  const [stuck, sound] = [new FakeNode('n1'), new FakeNode('n2')];
  stuck.draw = busyWith(new Promise(() => {}));
  const { generate } = await startRouter([stuck, sound], { execution: { factor: 1, floorMs: 100, capMs: 100, loadTimeoutMs: 0 } });
  const answers = await Promise.all([generate(), generate()]);
  expect(answers.map(({ response }) => response.nodeId)).toEqual(['n2', 'n2']);
});

/** Hands the first connection on; later ones are taken and left without a word. */
async function onlyOneConnection(address: string): Promise<string> {
  const sockets: Socket[] = [];
  const open = (socket: Socket) => {
    sockets.push(socket);
    return socket.on('error', () => {}); // cut below
  };
  const server = createServer((socket) => {
    open(socket);
    if (sockets.length > 1) return;
    const onward = open(connectSocket(Number(address.split(':')[1]), '127.0.0.1'));
    socket.pipe(onward).pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanups.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test('a node that takes a connection and never speaks on it: another one is asked after the connect timeout, and the reason is told', async () => {
  const [mute, sound] = [new FakeNode('n1'), new FakeNode('n2')];
  const link = { connectTimeoutMs: 150, keepaliveMs: 60_000 };
  const { generate, router, events } = await startRouter([mute], { link });
  await expect.poll(() => router.fleet.get('n1')?.link.connected).toBe(true);
  const { member } = joined(mute);
  // The line is the first connection, the calls are the second.
  const address = await onlyOneConnection(mute.beat.address);
  router.fleet.follow({ type: 'memberChanged', member: { ...member, beat: { ...member.beat, address } }, aspects: ['address'] });
  await expect.poll(() => router.fleet.get('n1')?.link.connected).toBe(true);
  const answer = generate();
  await expect.poll(() => router.leases.size).toBe(1);
  await sound.start();
  cleanups.unshift(() => sound.stop());
  router.fleet.follow(joined(sound));
  expect((await answer).response.nodeId).toBe('n2');
  const failed = events.filter((event) => event.type === 'attemptFailed');
  expect(failed).toMatchObject([{ nodeId: 'n1', again: true, error: { code: Code.UNAVAILABLE, reason: Reason.CONNECT_FAILED } }]);
  expect(failed[0]?.error.message).toContain('no word within 150 ms');
  expect(mute.started).toEqual([]);
});

test('two routers share one node in one order', async () => {
  const node = new FakeNode('n1');
  const release = gate();
  node.draw = busyWith(release.opened);
  const one = await startRouter([node]);
  const two = await startRouter([]);
  two.router.fleet.follow(joined(node));
  await expect.poll(() => [...two.router.fleet][0]?.link.connected).toBe(true);
  const answers = [one.generate({ requestId: 'a0' })];
  await expect.poll(() => node.started).toEqual(['a0']);
  const order = ['b1', 'a2', 'b3', 'a4'];
  for (const requestId of order) {
    const { generate, router } = requestId.startsWith('a') ? one : two;
    const before = router.dispatcher.waitingCount;
    answers.push(generate({ requestId }));
    await expect.poll(() => router.dispatcher.waitingCount).toBe(before + 1);
    await systemClock.sleep(5); // ages must differ for their order to mean something
  }
  release.open();
  await Promise.all(answers);
  expect(node.started).toEqual(['a0', ...order]);
});

test('time an attempt ran is not waiting: its retry has the whole queue time', async () => {
  const [first, second] = [new FakeNode('n1'), new FakeNode('n2')];
  let ranMs = 0;
  const breaks = async () => {
    const startedAt = systemClock.now();
    await systemClock.sleep(250);
    ranMs += systemClock.now() - startedAt;
    throw new StatusError({ code: Code.INTERNAL, reason: Reason.NAN_OUTPUT, message: 'NaN' });
  };
  first.draw = breaks;
  const release = gate();
  second.draw = busyWith(release.opened);
  const { generate, router } = await startRouter([first, second], { queue: { ...CONFIG.queue, timeoutMs: 200 } });
  await expect.poll(() => [...router.fleet].every((node) => node.link.connected)).toBe(true);
  const both = [generate(), generate()];
  await expect.poll(() => router.dispatcher.waitingCount).toBe(1);
  expect(ranMs).toBeGreaterThan(200);
  release.open();
  await expect(Promise.all(both)).resolves.toHaveLength(2);
});

test('an idle node takes work even when nothing may wait', async () => {
  const { generate, router } = await startRouter([new FakeNode('n1')], { queue: { ...CONFIG.queue, limits: room(0) } });
  await expect.poll(() => [...router.fleet][0]?.link.connected).toBe(true);
  await expect(generate()).resolves.toBeDefined();
});

test('a request waits for a much faster node that is busy rather than start on a slow idle one', async () => {
  const [fast, slow] = [new FakeNode('fast'), new FakeNode('slow')];
  const { generate, router } = await startRouter([fast, slow]);
  await expect.poll(() => [...router.fleet].every((node) => node.link.connected)).toBe(true);
  const work = { model: 'fake', width: 128, height: 128, steps: 4, imageCount: 1, guidanceScale: 0 };
  router.cost.observe('fast', work, 100);
  router.cost.observe('slow', work, 100_000);
  const release = gate();
  fast.draw = busyWith(release.opened);
  const first = generate({ requestId: 'r1' });
  await expect.poll(() => fast.started).toEqual(['r1']);
  const second = generate({ requestId: 'r2' });
  await expect.poll(() => router.dispatcher.waitingCount).toBe(1);
  await systemClock.sleep(50); // time for a wrong start, which would be at once
  expect(slow.started).toEqual([]);
  release.open();
  await Promise.all([first, second]);
  expect(fast.started).toEqual(['r1', 'r2']);
});

test('a node is not asked for each of many sizes that wait', async () => {
  const nodes = [new FakeNode('n1'), new FakeNode('n2')];
  const release = gate();
  for (const node of nodes) node.draw = busyWith(release.opened);
  const { generate, router } = await startRouter(nodes);
  const answers = Array.from({ length: 42 }, (_, i) => generate({ steps: 1 + i }));
  await expect.poll(() => router.dispatcher.waitingCount).toBe(40);
  const asked = vi.spyOn(FleetNode.prototype, 'canTake');
  onTestFinished(() => asked.mockRestore());
  router.dispatcher.pump();
  await Promise.resolve();
  expect(asked.mock.calls.length).toBeLessThan(10);
  release.open();
  await Promise.all(answers);
});

test('each model has its own nodes: what waits for one holds up nobody who waits for the other', async () => {
  const [a, b] = ['a', 'b'].map((name) => new FakeNode(name, { model: { ...FAKE_MODEL, name } }));
  if (!a || !b) throw new Error('two nodes');
  const [releaseA, releaseB] = [gate(), gate()];
  a.draw = busyWith(releaseA.opened);
  b.draw = busyWith(releaseB.opened);
  const { generate, router } = await startRouter([a, b]);
  await expect.poll(() => router.fleet.models().size).toBe(2);
  const answers = ['a', 'a', 'a', 'b', 'b'].map((model) => generate({ model }));
  await expect.poll(() => router.dispatcher.waitingCount).toBe(3);
  releaseB.open();
  await Promise.all(answers.slice(3));
  expect([a.started.length, b.started.length]).toEqual([1, 2]);
  releaseA.open();
  await Promise.all(answers);
});

test('a node whose revision lacks a LoRA is not asked for it', async () => {
  const bare = new FakeNode('n1', { model: { ...FAKE_MODEL, revision: '9', loras: [] } });
  const full = new FakeNode('n2', { model: { ...FAKE_MODEL, revision: '10' } });
  const { generate, router } = await startRouter([bare, full]);
  await expect.poll(() => [...router.fleet].every((node) => node.link.connected)).toBe(true);
  const answers = await Promise.all(Array.from({ length: 3 }, () => generate({ loras: [{ name: 'pastel' }] })));
  expect(answers.map(({ response }) => response.nodeId)).toEqual(['n2', 'n2', 'n2']);
});

test('before the first node, so many wait as may wait in the queue; the node ends their wait', async () => {
  const { generate, router } = await startRouter([], { queue: { ...CONFIG.queue, limits: room(2), noNodesWaitMs: 5000 } });
  const waiting = [generate(), generate()];
  await systemClock.sleep(50);
  await expect(generate()).rejects.toMatchObject({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.QUEUE_FULL });
  const node = new FakeNode('n1');
  await node.start();
  cleanups.unshift(() => node.stop());
  router.fleet.follow(joined(node));
  await expect(Promise.all(waiting)).resolves.toHaveLength(2);
});

test('nodes that were never reached serve nothing, whatever their beats say', async () => {
  const real = new FakeNode('n1');
  const { generate, router, channel } = await startRouter([real]);
  await generate();
  const names = ['fake', 'other'];
  for (let i = 0; i < 50; i++) {
    const { member } = joined(real);
    const models = [{ ...FAKE_MODEL, name: names[i % 2] ?? '', revision: 'zzz', limits: { ...FAKE_MODEL.limits, maxSteps: 4 } }];
    // Port 1 of the loopback: nobody listens there.
    const beat = { ...member.beat, nodeId: `ghost-${i}`, address: '127.0.0.1:1', models };
    router.fleet.follow({ type: 'memberJoined', member: { ...member, nodeId: beat.nodeId, beat } });
  }
  const { response } = await channel.unary(Service.listModels, {});
  expect(response.models.map(({ name, revision, nodes }) => ({ name, revision, nodes }))).toEqual([
    { name: 'fake', revision: '1', nodes: 1 },
  ]);
  expect((await generate({ steps: 9 })).response.nodeId).toBe('n1');
  // It may yet come: what is announced is waited for as long as a first node.
  await expect(generate({ model: 'other' })).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.NO_NODES });
  await expect(generate({ model: 'nobody' })).rejects.toMatchObject({ code: Code.NOT_FOUND, reason: Reason.UNKNOWN_MODEL });
});

test('a node that was reached still counts while it is away, and in its next life', async () => {
  const node = new FakeNode('n1');
  const { generate, router } = await startRouter([node]);
  await generate();
  await node.stop();
  await expect.poll(() => router.fleet.get('n1')?.link.connected).toBe(false);
  expect(router.fleet.models().get('fake')?.nodeCount).toBe(1);
  const { member } = joined(node);
  const next = { ...member, beat: { ...member.beat, incarnation: '2-a' } };
  router.fleet.follow({ type: 'memberRestarted', member: next, previousIncarnation: '1-a' });
  expect(router.fleet.models().get('fake')?.nodeCount).toBe(1);
});

test('a request that comes right after a second model was announced waits for the line to it', async () => {
  const [a, b] = ['a', 'b'].map((name) => new FakeNode(name, { model: { ...FAKE_MODEL, name } }));
  if (!a || !b) throw new Error('two nodes');
  const { generate, router } = await startRouter([a], { queue: { ...CONFIG.queue, noNodesWaitMs: 5000 } });
  await generate({ model: 'a' });
  await b.start();
  cleanups.unshift(() => b.stop());
  router.fleet.follow(joined(b));
  expect((await generate({ model: 'b' })).response.nodeId).toBe('b');
});

test('a node that is for ever busy when called, though it says it is idle, is given up on', async () => {
  const node = new FakeNode('n1');
  node.draw = async () => {
    queueMicrotask(() => node.announce());
    throw new StatusError({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.NODE_BUSY, message: 'busy' });
  };
  const { generate } = await startRouter([node]);
  await expect(generate()).rejects.toMatchObject({ reason: Reason.NODE_BUSY });
  expect(node.started.length).toBeLessThan(110);
});

const { HIGH, LOW } = generation.Priority;

/** One slot that is busy until `finish`; what comes meanwhile waits. */
async function startFull(config: Partial<RouterOptions['config']> = {}) {
  const node = new FakeNode('n1');
  const release = gate();
  node.draw = busyWith(release.opened);
  const started = await startRouter([node], config);
  const running = started.generate({ requestId: 'running' });
  await expect.poll(() => node.started).toEqual(['running']);
  /** Resolves when the request waits; its outcome is for later. */
  const wait = async (fields: Partial<generation.GenerateRequest>, options = {}) => {
    const before = started.router.dispatcher.waitingCount;
    const outcome = started.generate(fields, options).then(
      () => 'drawn',
      (error: StatusError) => error.reason,
    );
    await expect.poll(() => started.router.dispatcher.waitingCount).toBe(before + 1);
    return { outcome };
  };
  const finish = async () => {
    release.open();
    await running;
  };
  return { ...started, node, wait, finish };
}

const outcomes = (waiting: readonly { outcome: Promise<string> }[]) => Promise.all(waiting.map(({ outcome }) => outcome));

test('the more urgent class goes first; the field wins over the header', async () => {
  const { node, finish, wait } = await startFull();
  const waiting = [
    await wait({ requestId: 'low', priority: LOW }),
    await wait({ requestId: 'normal' }),
    await wait({ requestId: 'high', priority: HIGH }, { metadata: { 'x-priority': 'low' } }),
    await wait({ requestId: 'header' }, { metadata: { 'x-priority': 'HIGH' } }),
  ];
  await finish();
  expect(new Set(await outcomes(waiting))).toEqual(new Set(['drawn']));
  expect(node.started.slice(1)).toEqual(['high', 'header', 'normal', 'low']);
});

test('a class by another name is refused', async () => {
  const { generate } = await startRouter([new FakeNode('n1')]);
  await expect(generate({}, { metadata: { 'x-priority': 'urgent' } })).rejects.toMatchObject({
    code: Code.INVALID_ARGUMENT,
    details: { violations: [{ field: 'x-priority' }] },
  });
});

test('in a full queue a higher class pushes out the newest of the lowest', async () => {
  const { generate, finish, wait } = await startFull({ queue: { ...CONFIG.queue, limits: room(2) } });
  const [low, normal] = [await wait({ priority: LOW }), await wait({})];
  await expect(generate({ priority: LOW })).rejects.toMatchObject({ reason: Reason.QUEUE_FULL });
  const high = generate({ priority: HIGH });
  expect(await low.outcome).toBe(Reason.QUEUE_FULL);
  await expect(generate({})).rejects.toMatchObject({ reason: Reason.QUEUE_FULL, details: { retryDelayMs: expect.any(Number) } });
  await finish();
  expect(await normal.outcome).toBe('drawn');
  await high;
});

test('a class may fill its part of the queue only', async () => {
  const limits = { ...room(4), classRatio: { high: 1, normal: 1, low: 0.25 } };
  const { generate, finish, wait } = await startFull({ queue: { ...CONFIG.queue, limits } });
  const waiting = [await wait({ priority: LOW })];
  await expect(generate({ priority: LOW })).rejects.toMatchObject({ reason: Reason.QUEUE_FULL, details: { metadata: { limit: '1' } } });
  waiting.push(await wait({}));
  await finish();
  expect(await outcomes(waiting)).toEqual(['drawn', 'drawn']);
});

test('what cannot be finished in time is refused at once, with the predicted finish', async () => {
  const { generate, router, finish, wait } = await startFull();
  const work = { model: 'fake', width: 128, height: 128, steps: 4, imageCount: 1, guidanceScale: 0 };
  router.cost.observe('n1', work, 5000);
  const waiting = await wait({});
  await expect(generate({}, { deadlineAt: systemClock.now() + 3000 })).rejects.toMatchObject({
    code: Code.FAILED_PRECONDITION,
    reason: Reason.DEADLINE_UNREACHABLE,
    details: { metadata: { predicted_ms: expect.stringMatching(/^\d{4,}$/), left_ms: expect.any(String) } },
  });
  await finish();
  expect(await waiting.outcome).toBe('drawn');
});

test('a request refused for its deadline pushes nobody out', async () => {
  const { generate, router, finish, wait } = await startFull({ queue: { ...CONFIG.queue, limits: room(1) } });
  router.cost.observe('n1', { model: 'fake', width: 128, height: 128, steps: 4, imageCount: 1, guidanceScale: 0 }, 5000);
  const low = await wait({ priority: LOW });
  await expect(generate({ priority: HIGH }, { deadlineAt: systemClock.now() + 3000 })).rejects.toMatchObject({
    reason: Reason.DEADLINE_UNREACHABLE,
  });
  await finish();
  expect(await low.outcome).toBe('drawn');
});

test('a flood of urgent work leaves the lowest class its share', async () => {
  const { node, finish, wait } = await startFull();
  const waiting = [await wait({ requestId: 'low', priority: LOW })];
  for (let i = 0; i < 14; i++) waiting.push(await wait({ requestId: `high-${i}`, priority: HIGH }));
  await finish();
  await outcomes(waiting);
  // A tenth of the GPU time: after ten requests of equal cost it is owed one.
  expect(node.started.indexOf('low')).toBeGreaterThan(8);
  expect(node.started.indexOf('low')).toBeLessThan(13);
});

test('the same request id again joins what runs; another request of that id does not', async () => {
  const { node, generate, router, finish } = await startFull();
  const first = generate({ requestId: 'twice' });
  await expect.poll(() => router.dispatcher.waitingCount).toBe(1);
  const again = generate({ requestId: 'twice' });
  const other = generate({ requestId: 'twice', prompt: 'something else' });
  await expect.poll(() => router.dispatcher.waitingCount).toBe(2);
  await finish();
  const answers = await Promise.all([first, again, other]);
  expect(node.started).toEqual(['running', 'twice', 'twice']);
  expect(answers.map(({ trailers }) => trailers['x-mesh-joined'])).toEqual([undefined, 'twice', undefined]);
});

test('equal parameters with a seed join, unary and streamed; each answer is addressed to its caller', async () => {
  const { node, generate, channel, router, finish } = await startFull();
  const unary = ['a', 'b', 'c'].map((requestId) => generate({ requestId, seed: 7n }));
  const streams = ['d', 'e'].map(async (requestId) => {
    const kinds: string[] = [];
    const request = generation.GenerateRequest.fromPartial({ prompt: 'a red circle', requestId, seed: 7n });
    for await (const { event } of channel.serverStream(Service.generateStream, request)) {
      if (event?.$case === 'completed') expect(event.value.requestId).toBe(requestId);
      kinds.push(event?.$case ?? 'none');
    }
    return kinds;
  });
  await expect.poll(() => router.dispatcher.waitingCount).toBe(2);
  await finish();
  expect((await Promise.all(unary)).map(({ response }) => response.requestId)).toEqual(['a', 'b', 'c']);
  for (const kinds of await Promise.all(streams))
    expect(kinds.filter((kind) => kind !== 'queued')).toEqual(['accepted', 'started', 'step', 'step', 'completed']);
  expect(node.started.length).toBe(3);
});

test('who joined and waits longer than the first is not left alone when the first one has to go', async () => {
  const { node, generate, channel, router, finish } = await startFull();
  const soon = { deadlineAt: systemClock.now() + 400 };
  const late = { deadlineAt: systemClock.now() + 20_000 };
  const stream = async (seed: bigint | undefined, options: object) => {
    const seen: unknown[] = [];
    const request = generation.GenerateRequest.fromPartial({ prompt: 'streamed', requestId: 'same', seed });
    for await (const { event } of channel.serverStream(Service.generateStream, request, options)) {
      if (event?.$case === 'accepted') seen.push(event.value.seed);
      if (event?.$case === 'completed') seen.push('completed');
    }
    return seen;
  };
  const failing = [generate({ requestId: 'twice' }, soon), stream(undefined, soon)].map((each) => each.catch(({ reason }) => reason));
  await expect.poll(() => router.dispatcher.waitingCount).toBe(2);
  const [again, streamed] = [generate({ requestId: 'twice' }, late), stream(undefined, late)];
  expect(await Promise.all(failing)).not.toContain('completed');
  await expect.poll(() => router.dispatcher.waitingCount).toBe(2);
  await finish();
  expect((await again).response.requestId).toBe('twice');
  // Accepted once, under the seed that is then drawn.
  expect(await streamed).toEqual([expect.any(BigInt), 'completed']);
  expect(node.started).toEqual(['running', expect.any(String), expect.any(String)]);
});

test('what an idle mesh could not draw in time by far is not begun', async () => {
  const node = new FakeNode('n1');
  const { generate, router } = await startRouter([node]);
  router.cost.observe('n1', WORK, 5000);
  await expect(generate({}, { deadlineAt: systemClock.now() + 1000 })).rejects.toMatchObject({ reason: Reason.DEADLINE_UNREACHABLE });
  await generate({}, { deadlineAt: systemClock.now() + 4000 });
  expect(node.started.length).toBe(1);
});

test('when all nodes drain the caller is told so after a while', async () => {
  const node = new FakeNode('n1');
  node.accepting = false;
  const { generate, router } = await startRouter([node]);
  await expect.poll(() => router.fleet.get('n1')?.met).toBe(true);
  Object.assign(router.fleet.get('n1')?.member ?? {}, { beat: { ...node.beat, draining: true } });
  await expect(generate({ model: 'fake' })).rejects.toMatchObject({
    code: Code.UNAVAILABLE,
    reason: Reason.NO_NODES,
    message: expect.stringContaining('1 of those that serve it drain'),
  });
});

test('a node that turns a streamed request away has not started it', async () => {
  const node = new FakeNode('n1');
  let refusals = 3;
  node.draw = async () => {
    if (refusals-- <= 0) return;
    queueMicrotask(() => node.announce());
    throw new StatusError({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.NODE_BUSY, message: 'busy' });
  };
  const { channel } = await startRouter([node]);
  const started: number[] = [];
  const request = generation.GenerateRequest.fromPartial({ prompt: 'a red circle' });
  for await (const { event } of channel.serverStream(Service.generateStream, request)) {
    if (event?.$case === 'started') started.push(event.value.attempt);
  }
  expect(node.started.length).toBe(4);
  expect(started).toEqual([1]);
});

test('joined work is cancelled when the last caller leaves, not before', async () => {
  const node = new FakeNode('n1');
  const cancelled: string[] = [];
  const release = gate();
  node.draw = async (call) => {
    call.signal.addEventListener('abort', () => cancelled.push(call.request.requestId));
    await busyWith(release.opened)(call);
  };
  const { generate, router } = await startRouter([node]);
  const callers = [new AbortController(), new AbortController(), new AbortController()];
  const answers = callers.map(({ signal }, i) =>
    generate({ requestId: `r${i}`, seed: 1n }, { signal }).catch((error: StatusError) => error.code),
  );
  await expect.poll(() => node.started.length).toBe(1);
  callers[0]?.abort();
  expect(await answers[0]).toBe(Code.CANCELLED);
  callers[1]?.abort();
  expect(await answers[1]).toBe(Code.CANCELLED);
  expect(cancelled).toEqual([]);
  callers[2]?.abort();
  expect(await answers[2]).toBe(Code.CANCELLED);
  await expect.poll(() => cancelled.length).toBe(1);
  await expect.poll(() => router.leases.size).toBe(0);
});

test('a cache, when there is one, answers what was drawn before', async () => {
  const node = new FakeNode('n1', { imageBytes: 1000 });
  const { events, generate } = await startRouter([node], { cacheBytes: 5000 });
  const first = await generate({ seed: 3n });
  const second = await generate({ seed: 3n, requestId: 'again' });
  expect(second.response.requestId).toBe('again');
  expect(second.response.images).toEqual(first.response.images);
  expect([first.trailers['x-mesh-cache'], second.trailers['x-mesh-cache']]).toEqual([undefined, 'hit']);
  await generate({});
  await generate({});
  expect(node.started.length).toBe(3);
  expect(events.flatMap((event) => (event.type === 'cacheAsked' ? [event.hit] : []))).toEqual([false, true]);
});

const WORK = { model: 'fake', width: 128, height: 128, steps: 4, imageCount: 1, guidanceScale: 0 };
const HEDGE = { who: 'high', factor: 2, floorMs: 40 } as const;

/** n1 draws HIGH and falls silent, n2 is idle. */
async function startSilent(config: Partial<RouterOptions['config']> = {}) {
  const [silent, idle] = [new FakeNode('n1'), new FakeNode('n2')];
  const wakes = gate();
  const cancelled: string[] = [];
  const stall = async (call: Parameters<FakeNode['draw']>[0]) => {
    call.signal.addEventListener('abort', () => cancelled.push('n1'));
    await busyWith(wakes.opened)(call);
  };
  const started = await startRouter([silent], { hedge: HEDGE, ...config });
  const { router } = started;
  await expect.poll(() => router.fleet.get('n1')?.link.connected).toBe(true);
  router.cost.observe('n1', WORK, 10);
  const joinIdle = async () => {
    await idle.start();
    cleanups.unshift(() => idle.stop());
    router.fleet.follow(joined(idle));
  };
  const ended = () => started.events.filter((event) => event.type === 'hedgeEnded').map(({ result }) => result);
  return { ...started, silent, idle, wakes, stall, cancelled, joinIdle, ended };
}

test('HIGH whose node falls silent is drawn on an idle one as well; the first answer counts, the other attempt is cancelled', async () => {
  const { generate, router, silent, idle, stall, cancelled, joinIdle, ended, events } = await startSilent();
  silent.draw = stall;
  const answer = generate({ requestId: 'r1', priority: HIGH });
  await expect.poll(() => silent.started).toEqual(['r1']);
  await joinIdle();
  expect((await answer).response).toMatchObject({ nodeId: 'n2', attempts: 2 });
  expect(idle.started).toEqual(['r1']);
  await expect.poll(() => cancelled).toEqual(['n1']);
  await expect.poll(() => router.leases.size).toBe(0);
  expect(ended()).toEqual(['won']);
  // Nothing is held against the silent node, and its slot is free.
  expect(events.filter((event) => event.type === 'attemptFailed')).toEqual([]);
  expect(router.fleet.get('n1')?.breaker.state).toBe('closed');
  await expect.poll(() => router.fleet.hasIdleBeyond(1)).toBe(true);
});

test('a node that wakes up first keeps its picture; the second attempt is cancelled and is no failure', async () => {
  const { generate, router, silent, idle, wakes, stall, joinIdle, ended } = await startSilent();
  silent.draw = stall;
  idle.draw = busyWith(new Promise(() => {}));
  const answer = generate({ requestId: 'r1', priority: HIGH });
  await expect.poll(() => silent.started).toEqual(['r1']);
  await joinIdle();
  await expect.poll(() => idle.started).toEqual(['r1']);
  wakes.open();
  expect((await answer).response.nodeId).toBe('n1');
  await expect.poll(ended).toEqual(['lost']);
  await expect.poll(() => router.leases.size).toBe(0);
});

test('a stream that falls silent half-way: each step is told once, in order, and the picture comes from one node', async () => {
  const { channel, silent, idle, stall, joinIdle, ended } = await startSilent();
  silent.betweenSteps = stall;
  const told: unknown[] = [];
  const request = generation.GenerateRequest.fromPartial({ prompt: 'x', requestId: 'r1', priority: HIGH });
  for await (const { event } of channel.serverStream(Service.generateStream, request)) {
    if (event?.$case === 'started') told.push(event.value);
    if (event?.$case === 'completed') told.push(event.value.nodeId);
    if (event?.$case !== 'step') continue;
    told.push(event.value.step);
    if (event.value.step === 1) await joinIdle();
  }
  expect(told).toEqual([{ nodeId: 'n1', attempt: 1, loadMs: 0 }, 1, 2, 'n2']);
  expect(idle.started).toEqual(['r1']);
  await expect.poll(ended).toEqual(['won']);
});

test('a long stream that falls silent at a step is drawn elsewhere after the time of steps, not of the whole', async () => {
  const { channel, router, silent, stall, joinIdle, events } = await startSilent();
  router.cost.observe('n1', { ...WORK, steps: 50 }, 4000);
  silent.betweenSteps = stall;
  const request = generation.GenerateRequest.fromPartial({ prompt: 'x', steps: 50, priority: HIGH });
  for await (const { event } of channel.serverStream(Service.generateStream, request)) {
    if (event?.$case === 'step' && event.value.step === 1) await joinIdle();
    if (event?.$case === 'completed') expect(event.value.nodeId).toBe('n2');
  }
  const [begun] = events.filter((event) => event.type === 'hedgeStarted');
  expect(begun?.silentMs).toBeLessThan(4000);
});

test('a node that loads the model, as it said it would, is not silent before it has had the time for that', async () => {
  const [loads, idle] = [new FakeNode('n1', { model: { ...FAKE_MODEL, loaded: false, loadMs: 400 } }), new FakeNode('n2')];
  const { channel, router, events } = await startRouter([loads], { hedge: HEDGE });
  await expect.poll(() => router.fleet.get('n1')?.link.connected).toBe(true);
  router.cost.observe('n1', WORK, 10);
  loads.draw = async () => {
    await idle.start();
    cleanups.unshift(() => idle.stop());
    router.fleet.follow(joined(idle));
    await systemClock.sleep(400);
  };
  const request = generation.GenerateRequest.fromPartial({ prompt: 'x', priority: HIGH });
  for await (const { event } of channel.serverStream(Service.generateStream, request)) {
    if (event?.$case === 'completed') expect(event.value.nodeId).toBe('n1');
  }
  expect(events.filter((event) => event.type === 'hedgeStarted')).toEqual([]);
});

test('when the second attempt fails the first one still counts, and the other way round', async () => {
  const broken = new StatusError({ code: Code.INTERNAL, reason: Reason.INTERNAL, message: 'broken' });
  const { generate, silent, idle, wakes, stall, joinIdle, ended } = await startSilent();
  silent.draw = stall;
  idle.draw = () => Promise.reject(broken);
  const first = generate({ requestId: 'r1', priority: HIGH });
  await expect.poll(() => silent.started).toEqual(['r1']);
  await joinIdle();
  await expect.poll(ended).toEqual(['failed']);
  wakes.open();
  expect((await first).response.nodeId).toBe('n1');

  const release = gate();
  const [again, breaks] = [gate(), gate()];
  silent.draw = async (call) => {
    again.open();
    await busyWith(breaks.opened)(call);
    throw broken;
  };
  idle.draw = busyWith(release.opened);
  // Whichever draws first: the other joins it.
  const second = generate({ requestId: 'r2', priority: HIGH });
  await again.opened;
  await expect.poll(() => idle.started.includes('r2')).toBe(true);
  breaks.open();
  release.open();
  expect((await second).response.nodeId).toBe('n2');
});

test.each([
  ['for NORMAL', {}, generation.Priority.NORMAL],
  ['when it is off', { hedge: { ...HEDGE, who: 'off' as const } }, HIGH],
  ['when the retry budget is spent', { retry: { maxNodes: 3, ratio: 0, floorCount: 0 } }, HIGH],
  ['when a request is tried on one node only', { retry: { ...CONFIG.retry, maxNodes: 1 } }, HIGH],
])('no second attempt %s', async (_, config, priority) => {
  const { generate, silent, idle, wakes, stall, joinIdle, events } = await startSilent(config);
  silent.draw = stall;
  const answer = generate({ priority });
  await expect.poll(() => silent.started.length).toBe(1);
  await joinIdle();
  await systemClock.sleep(150); // time for several wrong attempts
  wakes.open();
  expect((await answer).response.nodeId).toBe('n1');
  expect(idle.started).toEqual([]);
  expect(events.filter((event) => event.type === 'hedgeStarted')).toEqual([]);
});

test('with a long queue a slower node draws its part', async () => {
  const [fast, slow] = [new FakeNode('fast'), new FakeNode('slow')];
  const { generate, router } = await startRouter([fast, slow]);
  await expect.poll(() => [...router.fleet].every((node) => node.link.connected)).toBe(true);
  router.cost.observe('fast', WORK, 20);
  router.cost.observe('slow', WORK, 60);
  fast.executingMs = 20;
  slow.executingMs = 60;
  fast.draw = () => systemClock.sleep(20);
  slow.draw = () => systemClock.sleep(60);
  await Promise.all(Array.from({ length: 40 }, () => generate()));
  expect(slow.started.length).toBeGreaterThan(4);
});

/** Nodes that have drawn some pictures in 200 ms each, they say. */
async function startPaced(count: number) {
  const nodes = Array.from({ length: count }, (_, i) => new FakeNode(`n${i + 1}`));
  for (const node of nodes) {
    node.executingMs = 200;
    node.draw = () => systemClock.sleep(node.executingMs / 40);
  }
  const started = await startRouter(nodes, { breaker: { openMs: 200 } });
  const { router, generate } = started;
  await expect.poll(() => [...router.fleet].every((node) => node.link.connected)).toBe(true);
  for (const { nodeId } of nodes) for (let i = 0; i < 5; i++) router.cost.observe(nodeId, WORK, 200);
  const draw = (times: number) => Promise.all(Array.from({ length: times }, () => generate()));
  const breakerOf = (node: FakeNode) => router.fleet.get(node.nodeId)?.breaker;
  const told = (type: string) => started.events.filter((event) => event.type === type);
  const [sick] = nodes;
  if (!sick) throw new Error('a node');
  return { ...started, sick, nodes, draw, breakerOf, told };
}

test('a node that takes four times what it should is in quarantine; it draws canaries until one is in range', async () => {
  const { sick, draw, breakerOf, told, generate } = await startPaced(3);
  sick.executingMs = 800;
  for (let i = 0; i < 20 && breakerOf(sick)?.state === 'closed'; i++) await draw(20);
  expect(breakerOf(sick)?.cause).toBe('tooSlow');
  expect(told('breakerOpened')[0]).toMatchObject({ node: 'n1', cause: 'tooSlow', detail: expect.stringMatching(/takes \d\.\d times/) });
  await expect.poll(() => told('canaryEnded').length, { timeout: 5000 }).toBeGreaterThanOrEqual(2);
  expect(told('canaryEnded')[0]).toMatchObject({ ok: false, reason: Reason.EXECUTION_TIMEOUT });
  expect(breakerOf(sick)?.cause).toBe('tooSlow');
  const users = () => sick.started.filter((id) => !id.startsWith('canary'));
  const before = users().length;
  await Promise.all(Array.from({ length: 6 }, () => generate()));
  expect(users().length).toBe(before);
  sick.executingMs = 200;
  await expect.poll(() => breakerOf(sick)?.state, { timeout: 8000 }).toBe('closed');
  expect(breakerOf(sick)?.cause).toBeUndefined();
  await draw(3);
  expect(breakerOf(sick)?.state).toBe('closed');
});

test('a GPU that was never well is found by others of its name, with no history of its own', async () => {
  const nodes = ['n1', 'n2', 'n3'].map((id) => new FakeNode(id));
  for (const node of nodes) {
    node.gpu = { uuid: node.nodeId, name: 'H100', memoryTotalBytes: 80e9, memoryUsedBytes: 0, utilisationRatio: 1, temperatureCelsius: 60 };
    node.executingMs = node.nodeId === 'n3' ? 800 : 200;
    node.draw = () => systemClock.sleep(node.executingMs / 40);
  }
  const { router, generate } = await startRouter(nodes);
  await expect.poll(() => [...router.fleet].every((node) => node.link.connected)).toBe(true);
  const causes = () => [...router.fleet].map((node) => node.breaker.cause);
  for (let i = 0; i < 10 && causes()[2] === undefined; i++) await Promise.all(Array.from({ length: 20 }, () => generate()));
  expect(causes()).toEqual([undefined, undefined, 'tooSlow']);
});

test('one stall sends nobody away', async () => {
  const { sick, draw, breakerOf } = await startPaced(3);
  sick.executingMs = 4000;
  while (!sick.started.length) await draw(1);
  sick.executingMs = 200;
  await draw(12);
  expect(breakerOf(sick)?.state).toBe('closed');
});

test('a node that cannot be spared stays, however slow; that is told once', async () => {
  const { sick, router, draw, breakerOf, told } = await startPaced(2);
  const other = router.fleet.get('n2');
  other?.link.close();
  await expect.poll(() => other?.link.connected).toBe(false);
  sick.executingMs = 800;
  for (let i = 0; i < 8; i++) await draw(1);
  expect(breakerOf(sick)?.state).toBe('closed');
  expect(told('slowNodeKept')).toMatchObject([{ nodeId: 'n1' }]);
});

const YEAR_MS = 365 * 24 * 3600 * 1000;

test.each([YEAR_MS, -YEAR_MS])('a wall clock that jumps by %d ms moves no deadline, no wait and no lease', async (jumpMs) => {
  const node = new FakeNode('n1');
  const release = gate();
  node.draw = busyWith(release.opened);
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() });
  cleanups.push(() => void vi.useRealTimers());
  const { generate, router } = await startRouter([node], { queue: { ...CONFIG.queue, timeoutMs: 600 } });
  const deadlineAt = systemClock.now() + 20_000;
  const running = generate({ requestId: 'r1' }, { deadlineAt });
  await expect.poll(() => node.started).toEqual(['r1']);
  const waiting = generate({ requestId: 'r2' }, { deadlineAt });
  await expect.poll(() => router.dispatcher.waitingCount).toBe(1);
  const cameAt = systemClock.now();
  vi.setSystemTime(Date.now() + jumpMs);
  const after = generate({ requestId: 'r3' }, { deadlineAt });
  const refusals = await Promise.all([waiting, after].map((answer) => answer.catch((error: StatusError) => error.reason)));
  expect(refusals).toEqual([Reason.QUEUE_TIMEOUT, Reason.QUEUE_TIMEOUT]);
  expect(systemClock.now() - cameAt).toBeGreaterThan(500);
  expect(router.leases.size).toBe(1);
  release.open();
  expect((await running).response.nodeId).toBe('n1');
});
