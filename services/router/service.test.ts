import { type AddressInfo, connect as connectSocket, createServer, type Socket } from 'node:net';
import { afterEach, expect, test, vi } from 'vitest';
import { generation } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import { systemClock } from '#runtime';
import { FakeNode } from '../../test/support/fake-node.js';
import { busyWith, CONFIG, cleanUp, cleanups, gate, joined, Service, startRouter } from '../../test/support/router-world.js';

afterEach(cleanUp);

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

test('a refusal is not believed for ever: that the node takes work again it may have said before', async () => {
  const node = new FakeNode('n1');
  const { events, generate } = await startRouter([node], { queue: { ...CONFIG.queue, noNodesWaitMs: 9000 } });
  await generate();
  node.accepting = false; // and no word of it, then or later
  const answer = generate({ requestId: 'r2' });
  await expect.poll(() => events.map(({ type }) => type)).toContain('attemptFailed');
  node.accepting = true;
  await answer;
  expect(node.started).toContain('r2');
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
