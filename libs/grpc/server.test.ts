import { afterEach, expect, test, vi } from 'vitest';
import { generation, reflectionV1 } from '#contracts';
import { badRequest, Code, Reason } from '#core';
import { systemClock } from '#runtime';
import { Channel } from './channel.js';
import type { HandlersOf } from './method.js';
import { addReflection } from './reflection.js';
import { type CallEnded, Server } from './server.js';

const Service = generation.ImageGenerationServiceService;
type Handlers = HandlersOf<typeof Service>;
const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function start(handlers: Partial<Handlers>) {
  const events: CallEnded[] = [];
  const server = new Server({ clock: systemClock, emit: (event) => events.push(event), maxRequestBytes: 64 * 1024 });
  addReflection(server, ['diffusionmesh.v1.ImageGenerationService']);
  const none = () => Promise.reject(new Error('not part of this test'));
  server.add(Service, { generate: none, generateStream: none, listModels: none, ...handlers } as Handlers);
  const port = await server.listen('127.0.0.1:0');
  const channel = new Channel(`127.0.0.1:${port}`, { clock: systemClock });
  cleanups.push(
    () => server.close(),
    () => channel.close(),
  );
  return { server, channel, events };
}

const request = generation.GenerateRequest.fromPartial({ prompt: 'a red circle' });

test('a handler answers and its trailers arrive', async () => {
  const { channel, events } = await start({
    generate: async (call) => {
      call.trailers['x-mesh-node'] = 'n1';
      return generation.GenerateResponse.fromPartial({ requestId: call.request.prompt });
    },
  });
  const { response, trailers } = await channel.unary(Service.generate, request);
  expect(response.requestId).toBe('a red circle');
  expect(trailers['x-mesh-node']).toBe('n1');
  await expect.poll(() => events.map((event) => event.code)).toEqual([Code.OK]);
});

test('a Buffer passes as the bytes of the answer', async () => {
  const bytes = Buffer.from(generation.GenerateResponse.encode(generation.GenerateResponse.fromPartial({ nodeId: 'raw' })).finish());
  const { channel } = await start({ generate: async () => bytes });
  const { response } = await channel.unaryRaw(Service.generate, request);
  expect(response.toBuffer().equals(bytes)).toBe(true);
});

test('every violation of a StatusError reaches the caller', async () => {
  const violations = [
    { field: 'width', description: 'expected 64..256, got 7' },
    { field: 'steps', description: 'expected 1..50, got 99' },
  ];
  const { channel } = await start({ generate: () => Promise.reject(badRequest(violations)) });
  await expect(channel.unary(Service.generate, request)).rejects.toMatchObject({
    code: Code.INVALID_ARGUMENT,
    reason: Reason.BAD_REQUEST,
    details: { violations },
  });
});

test('an unknown throw becomes INTERNAL and hides its text', async () => {
  const { channel } = await start({ generate: () => Promise.reject(new Error('secret path')) });
  await expect(channel.unary(Service.generate, request)).rejects.toMatchObject({ code: Code.INTERNAL, message: 'internal error' });
});

test('bytes that are no message are INVALID_ARGUMENT', async () => {
  const { channel } = await start({ generate: async () => generation.GenerateResponse.fromPartial({}) });
  const garbage = { ...Service.generate, requestSerialize: () => Buffer.from([0xff, 0xff, 0xff]) };
  await expect(channel.unary(garbage, request)).rejects.toMatchObject({ code: Code.INVALID_ARGUMENT });
});

test('a request over the limit is RESOURCE_EXHAUSTED', async () => {
  const { channel } = await start({ generate: async () => generation.GenerateResponse.fromPartial({}) });
  const large = { ...request, prompt: 'x'.repeat(100_000) };
  await expect(channel.unary(Service.generate, large)).rejects.toMatchObject({ code: Code.RESOURCE_EXHAUSTED });
});

test("a caller's cancel aborts the handler's signal", async () => {
  let reason: unknown;
  const gate = deferred<void>();
  const { channel } = await start({
    generate: (call) =>
      new Promise((_, reject) => {
        gate.resolve();
        call.signal.addEventListener('abort', () => {
          reason = call.signal.reason;
          reject(call.signal.reason);
        });
      }),
  });
  const abort = new AbortController();
  const answer = channel.unary(Service.generate, request, { signal: abort.signal });
  await gate.promise;
  abort.abort();
  await expect(answer).rejects.toMatchObject({ code: Code.CANCELLED });
  await expect.poll(() => reason).toMatchObject({ code: Code.CANCELLED });
});

test('the deadline travels', async () => {
  let leftMs = 0;
  const { channel } = await start({
    generate: async (call) => {
      leftMs = call.deadlineAt - systemClock.now();
      return generation.GenerateResponse.fromPartial({});
    },
  });
  await channel.unary(Service.generate, request, { deadlineAt: systemClock.now() + 5000 });
  expect(leftMs).toBeGreaterThan(4000);
  expect(leftMs).toBeLessThanOrEqual(5010);
});

test('a stream delivers in order and ends', async () => {
  const { channel } = await start({
    generateStream: async (_call, out) => {
      for (let step = 1; step <= 3; step++) {
        await out.write({ event: { $case: 'step', value: { step, total: 3, imageIndex: 0 } } });
      }
    },
  });
  const steps: number[] = [];
  for await (const { event } of channel.serverStream(Service.generateStream, request)) {
    if (event?.$case === 'step') steps.push(event.value.step);
  }
  expect(steps).toEqual([1, 2, 3]);
});

test('leaving a stream early cancels it at the server', async () => {
  const cancelled = deferred<void>();
  const { channel } = await start({
    generateStream: async (call, out) => {
      call.signal.addEventListener('abort', () => cancelled.resolve());
      for (let step = 1; !call.signal.aborted; step++) {
        await out.write({ event: { $case: 'step', value: { step, total: 3, imageIndex: 0 } } });
        await systemClock.sleep(1);
      }
    },
  });
  for await (const _event of channel.serverStream(Service.generateStream, request)) break;
  await cancelled.promise;
});

test('a duplex handler answers after the caller has half-closed', async () => {
  const { channel } = await start({});
  const Reflection = reflectionV1.ServerReflectionService;
  const call = channel.duplex(Reflection.serverReflectionInfo);
  call.send({ host: 'h', messageRequest: { $case: 'listServices', value: '' } });
  call.end();
  const answers: string[] = [];
  for await (const { messageResponse } of call.messages) answers.push(messageResponse?.$case ?? '');
  expect(answers).toEqual(['listServicesResponse']);
});

test('a drain lets running calls finish and refuses new ones', async () => {
  const entered = deferred<void>();
  const release = deferred<void>();
  const { server, channel } = await start({
    generate: async () => {
      entered.resolve();
      await release.promise;
      return generation.GenerateResponse.fromPartial({ nodeId: 'done' });
    },
  });
  const running = channel.unary(Service.generate, request);
  await entered.promise;
  const drained = server.drain();
  await expect(channel.unary(Service.generate, request)).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.DRAINING });
  release.resolve();
  expect((await running).response.nodeId).toBe('done');
  await drained;
});

test('a slow reader gets everything, and the writer waits for it without a listener a message', async () => {
  const warnings = vi.spyOn(process, 'emitWarning');
  const messageCount = 100;
  const { channel } = await start({
    generateStream: async (_call, out) => {
      const image = { imageIndex: 0, data: Buffer.alloc(64 * 1024) };
      const writes = Array.from({ length: messageCount }, (_, i) =>
        out.write(generation.GenerateEvent.fromPartial({ event: { $case: 'image', value: { ...image, offset: BigInt(i) } } })),
      );
      await Promise.all(writes);
    },
  });
  const offsets: bigint[] = [];
  for await (const { event } of channel.serverStream(Service.generateStream, request)) {
    if (event?.$case === 'image') offsets.push(event.value.offset);
  }
  expect(offsets).toEqual(Array.from({ length: messageCount }, (_, i) => BigInt(i)));
  expect(warnings).not.toHaveBeenCalled();
});

test('everyone who waits for a drain is told of its end', async () => {
  const entered = deferred<void>();
  const release = deferred<void>();
  const { server, channel } = await start({
    generate: async () => {
      entered.resolve();
      await release.promise;
      return generation.GenerateResponse.fromPartial({});
    },
  });
  const running = channel.unary(Service.generate, request);
  await entered.promise;
  const drains = [server.drain(), server.drain()];
  release.resolve();
  await Promise.all(drains);
  await running;
});

test('a connection refused says that nothing was sent', async () => {
  const channel = new Channel('127.0.0.1:1', { clock: systemClock });
  cleanups.push(() => channel.close());
  await expect(channel.unary(Service.generate, request)).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.CONNECT_FAILED });
});

function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((r) => {
    resolve = r;
  });
  return { promise, resolve };
}
