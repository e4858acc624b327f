/** Who goes first, who waits, and who is turned away; over a real router. */
import { afterEach, expect, onTestFinished, test, vi } from 'vitest';
import { generation } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import { systemClock } from '#runtime';
import { FAKE_MODEL, FakeNode } from '../../../test/support/fake-node.js';
import {
  busyWith,
  CONFIG,
  cleanUp,
  cleanups,
  gate,
  joined,
  room,
  Service,
  startFull,
  startRouter,
  WORK,
} from '../../../test/support/router-world.js';
import { FleetNode } from './fleet-node.js';

afterEach(cleanUp);

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
