import { afterEach, expect, test } from 'vitest';
import { generation } from '#contracts';
import { Code, type StatusError } from '#core';
import { systemClock } from '#runtime';
import { FakeNode } from '../../test/support/fake-node.js';
import { busyWith, cleanUp, gate, Service, startFull, startRouter } from '../../test/support/router-world.js';

afterEach(cleanUp);

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
