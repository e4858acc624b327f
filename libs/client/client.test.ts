import { afterEach, expect, test } from 'vitest';
import { admin, generation } from '#contracts';
import { badRequest, Code, Reason, StatusError } from '#core';
import { type HandlersOf, Server } from '#grpc';
import { systemClock } from '#runtime';
import { connectMesh, type MeshClient, type Progress } from './index.js';

const Pictures = generation.ImageGenerationServiceService;
const Admin = admin.MeshAdminServiceService;
type Handlers = HandlersOf<typeof Pictures> & HandlersOf<typeof Admin>;

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A mesh of one server whose methods the test writes. Retries come at once, random is always 0. */
async function mesh(handlers: Partial<Handlers>, options: { token?: string } = {}): Promise<MeshClient> {
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1024 * 1024 });
  const none = () => Promise.reject(new Error('not part of this test'));
  server.add(Pictures, { generate: none, generateStream: none, listModels: none, ...handlers } as HandlersOf<typeof Pictures>);
  server.add(Admin, { listNodes: none, watchMesh: none, drain: none, resume: none, ...handlers } as HandlersOf<typeof Admin>);
  const port = await server.listen('127.0.0.1:0');
  const client = connectMesh({ address: `127.0.0.1:${port}`, random: () => 0, ...options });
  cleanups.push(
    () => server.close(),
    () => client.close(),
  );
  return client;
}

const png = Buffer.from('a whole file');
const answer = (request: generation.GenerateRequest) =>
  generation.GenerateResponse.fromPartial({
    requestId: request.requestId,
    nodeId: 'node-1',
    attempts: 1,
    queuedMs: 3,
    executingMs: 40,
    used: { model: 'tiny', seed: request.seed ?? 0n },
    images: [{ data: png, mimeType: 'image/png', width: 128, height: 128, seed: request.seed ?? 0n }],
  });
const chunk = (data: Buffer, offset: number) =>
  generation.ImageChunk.fromPartial({ data, offset: BigInt(offset), totalBytes: BigInt(png.length), mimeType: 'image/png' });
const completed = generation.Completed.fromPartial({ nodeId: 'node-2', attempts: 2, imageCount: 1, used: { model: 'tiny' } });

test('a picture, with everything that decided what it looks like', async () => {
  const client = await mesh({ generate: async (call) => answer(call.request) });
  const result = await client.generate({ prompt: 'a red circle', seed: 7 });
  expect(result).toMatchObject({
    nodeId: 'node-1',
    attempts: 1,
    timings: { queuedMs: 3, executingMs: 40 },
    used: { model: 'tiny', seed: 7n },
  });
  expect(result.images.map((image) => Buffer.from(image.data).toString())).toEqual(['a whole file']);
});

test('a token goes with every call', async () => {
  const seen: (string | undefined)[] = [];
  const client = await mesh(
    {
      generate: async (call) => {
        seen.push(call.metadata.authorization);
        return answer(call.request);
      },
      listNodes: async (call) => {
        seen.push(call.metadata.authorization);
        return { nodes: [] };
      },
    },
    { token: 'dm_a_b' },
  );
  await client.generate({ prompt: 'x' });
  await client.listNodes();
  expect(seen).toEqual(['Bearer dm_a_b', 'Bearer dm_a_b']);
});

test('every field of a request reaches the mesh', async () => {
  let seen: generation.GenerateRequest | undefined;
  const client = await mesh({
    generate: async (call) => {
      seen = call.request;
      return answer(call.request);
    },
  });
  await client.generate({
    prompt: 'p',
    model: 'm',
    negativePrompt: 'n',
    width: 64,
    height: 128,
    steps: 4,
    guidanceScale: 0,
    seed: 2n ** 40n,
    imageCount: 2,
    loras: [{ name: 'neon', strength: 0.5 }, { name: 'pastel' }],
    format: 'webp',
    priority: 'high',
    requestId: 'r-1',
  });
  expect(seen).toEqual({
    requestId: 'r-1',
    model: 'm',
    prompt: 'p',
    negativePrompt: 'n',
    width: 64,
    height: 128,
    steps: 4,
    guidanceScale: 0,
    seed: 2n ** 40n,
    imageCount: 2,
    loras: [
      { name: 'neon', strength: 0.5 },
      { name: 'pastel', strength: undefined },
    ],
    format: generation.ImageFormat.WEBP,
    priority: generation.Priority.HIGH,
  });
});

test('a stream tells how the picture comes along and is put together', async () => {
  const client = await mesh({
    generateStream: async (call, out) => {
      await out.write({ event: { $case: 'accepted', value: { requestId: call.request.requestId, seed: 7n, etaMs: 90 } } });
      await out.write({ event: { $case: 'queued', value: { position: 2, etaMs: 180 } } });
      await out.write({ event: { $case: 'started', value: { nodeId: 'node-1', attempt: 1, loadMs: 0 } } });
      await out.write({ event: { $case: 'step', value: { step: 1, total: 1, imageIndex: 0 } } });
      await out.write({ event: { $case: 'image', value: chunk(png, 0) } });
      await out.write({ event: { $case: 'completed', value: completed } });
    },
  });
  const seen: Progress[] = [];
  const result = await client.generate({ prompt: 'p', requestId: 'r' }, { onProgress: (progress) => seen.push(progress) });
  expect(Buffer.from(result.images[0]?.data ?? []).toString()).toBe('a whole file');
  expect(seen).toEqual([
    { kind: 'accepted', requestId: 'r', seed: 7n, etaMs: 90 },
    { kind: 'queued', position: 2, etaMs: 180 },
    { kind: 'started', nodeId: 'node-1', attempt: 1, loadMs: 0 },
    { kind: 'step', step: 1, total: 1, imageIndex: 0 },
    { kind: 'receiving', imageIndex: 0, receivedBytes: png.length, totalBytes: png.length },
  ]);
});

test('chunks that do not fit are no picture', async () => {
  const client = await mesh({ generateStream: async (_, out) => out.write({ event: { $case: 'image', value: chunk(png, 5) } }) });
  await expect(client.generate({ prompt: 'p' }, { onProgress: () => {} })).rejects.toMatchObject({ reason: Reason.BAD_STREAM });
});

test('chunks of a lost attempt are void', async () => {
  const client = await mesh({
    generateStream: async (_, out) => {
      await out.write({ event: { $case: 'started', value: { nodeId: 'node-1', attempt: 1, loadMs: 0 } } });
      await out.write({ event: { $case: 'image', value: chunk(Buffer.from('lost'), 0) } });
      await out.write({ event: { $case: 'started', value: { nodeId: 'node-2', attempt: 2, loadMs: 0 } } });
      await out.write({ event: { $case: 'step', value: { step: 1, total: 1, imageIndex: 0 } } });
      await out.write({ event: { $case: 'image', value: chunk(png.subarray(0, 5), 0) } });
      await out.write({ event: { $case: 'image', value: chunk(png.subarray(5), 5) } });
      await out.write({ event: { $case: 'completed', value: completed } });
    },
  });
  const seen: Progress[] = [];
  const result = await client.generate({ prompt: 'p' }, { onProgress: (progress) => seen.push(progress) });
  expect(Buffer.from(result.images[0]?.data ?? []).toString()).toBe('a whole file');
  expect(result).toMatchObject({ nodeId: 'node-2', attempts: 2 });
  expect(seen.at(-1)).toEqual({ kind: 'receiving', imageIndex: 0, receivedBytes: png.length, totalBytes: png.length });
});

test('a stream without its last event is no picture', async () => {
  const client = await mesh({ generateStream: async (_, out) => out.write({ event: { $case: 'image', value: chunk(png, 0) } }) });
  await expect(client.generate({ prompt: 'p' }, { onProgress: () => {} })).rejects.toMatchObject({ reason: Reason.BAD_STREAM });
});

test('what onProgress throws comes out as it is, and the call is cancelled', async () => {
  const own = new TypeError('a bug of the caller');
  let tellEnded = (_reason: unknown) => {};
  const ended = new Promise<unknown>((resolve) => {
    tellEnded = resolve;
  });
  const client = await mesh({
    generateStream: async (call, out) => {
      call.signal.addEventListener('abort', () => tellEnded(call.signal.reason));
      await out.write({ event: { $case: 'started', value: generation.Started.fromPartial({ nodeId: 'node-1', attempt: 1 }) } });
      await ended;
    },
  });
  const onProgress = () => {
    throw own;
  };
  await expect(client.generate({ prompt: 'p' }, { onProgress })).rejects.toBe(own);
  expect(await ended).toMatchObject({ reason: Reason.CANCELLED });
});

test('a refused request is repeated under the same id and seed', async () => {
  const seen: generation.GenerateRequest[] = [];
  const client = await mesh({
    generate: async (call) => {
      seen.push(call.request);
      if (seen.length < 3) {
        throw new StatusError({ code: Code.UNAVAILABLE, reason: Reason.NO_NODES, message: 'none yet', retryDelayMs: 5 });
      }
      return answer(call.request);
    },
  });
  await client.generate({ prompt: 'p' });
  expect(seen).toHaveLength(3);
  expect(seen[0]?.requestId).toMatch(/^c-[0-9a-z]{14}$/);
  expect(seen[0]?.seed).toBeDefined();
  expect(seen[1]).toEqual(seen[0]);
  expect(seen[2]).toEqual(seen[0]);
});

test('the third refusal is the answer', async () => {
  let count = 0;
  const client = await mesh({
    generate: () => {
      count++;
      return Promise.reject(new StatusError({ code: Code.UNAVAILABLE, reason: Reason.NO_NODES, message: 'none', retryDelayMs: 1 }));
    },
  });
  await expect(client.generate({ prompt: 'p' })).rejects.toMatchObject({ reason: Reason.NO_NODES });
  expect(count).toBe(3);
});

test('no wait goes past the deadline', async () => {
  let count = 0;
  const client = await mesh({
    generate: () => {
      count++;
      return Promise.reject(new StatusError({ code: Code.UNAVAILABLE, reason: Reason.NO_NODES, message: 'none', retryDelayMs: 60_000 }));
    },
  });
  await expect(client.generate({ prompt: 'p' }, { timeoutMs: 5000 })).rejects.toMatchObject({ reason: Reason.NO_NODES });
  expect(count).toBe(1);
});

test('a bad request names every field and is not repeated', async () => {
  let count = 0;
  const violations = [{ field: 'width', description: 'expected 64..256, got 7' }];
  const client = await mesh({
    generate: () => {
      count++;
      return Promise.reject(badRequest(violations));
    },
  });
  await expect(client.generate({ prompt: 'p' })).rejects.toMatchObject({ code: Code.INVALID_ARGUMENT, details: { violations } });
  expect(count).toBe(1);
});

test('nobody there: CONNECT_FAILED after a few tries', async () => {
  const client = connectMesh({ address: '127.0.0.1:1', random: () => 0 });
  cleanups.push(() => client.close());
  const retries: Progress[] = [];
  const failing = client.generate({ prompt: 'p' }, { onProgress: (progress) => retries.push(progress) });
  await expect(failing).rejects.toMatchObject({
    code: Code.UNAVAILABLE,
    reason: Reason.CONNECT_FAILED,
    message: 'no connection to 127.0.0.1:1: connection refused',
  });
  expect(retries.map((progress) => progress.kind)).toEqual(['retrying', 'retrying']);
});

test('the deadline ends a call', async () => {
  const client = await mesh({ generate: () => new Promise(() => {}) });
  await expect(client.generate({ prompt: 'p' }, { timeoutMs: 50 })).rejects.toMatchObject({
    code: Code.DEADLINE_EXCEEDED,
    message: `no answer from ${client.address} within 50 ms`,
  });
});

test.each<[string, (client: MeshClient) => Promise<unknown>]>([
  ['drain', (client) => client.drain('node-1')],
  ['resume', (client) => client.resume('node-1')],
  ['waitForNodes', (client) => client.waitForNodes(1)],
])('%s() says in one sentence that nobody is there', async (_, call) => {
  const client = connectMesh({ address: '127.0.0.1:1' });
  cleanups.push(() => client.close());
  await expect(call(client)).rejects.toMatchObject({ message: 'no connection to 127.0.0.1:1: connection refused' });
});

test.each([
  ['one answer', {}],
  ['a stream', { onProgress: () => {} }],
])('aborting the signal cancels a call for %s, there and here', async (_, options) => {
  let arrived = () => {};
  const running = new Promise<void>((resolve) => {
    arrived = resolve;
  });
  let cancelledThere = false;
  const wait = (call: { signal: AbortSignal }) =>
    new Promise<never>((__, reject) => {
      arrived();
      call.signal.addEventListener('abort', () => {
        cancelledThere = true;
        reject(call.signal.reason);
      });
    });
  const client = await mesh({ generate: wait, generateStream: wait });
  const abort = new AbortController();
  const failing = client.generate({ prompt: 'p' }, { signal: abort.signal, ...options });
  running.then(() => abort.abort());
  await expect(failing).rejects.toMatchObject({ code: Code.CANCELLED });
  await expect.poll(() => cancelledThere).toBe(true);
});

test('models, nodes, drain and resume', async () => {
  const asked: string[] = [];
  const client = await mesh({
    listModels: async () => generation.ListModelsResponse.fromPartial({ models: [{ name: 'tiny' }] }),
    listNodes: async () => admin.ListNodesResponse.fromPartial({ nodes: [{ nodeId: 'node-1' }] }),
    drain: async (call) => {
      asked.push(`drain ${call.request.nodeId}`);
      return {};
    },
    resume: async (call) => {
      asked.push(`resume ${call.request.nodeId}`);
      return {};
    },
  });
  expect((await client.listModels()).map((model) => model.name)).toEqual(['tiny']);
  expect((await client.listNodes()).map((node) => node.nodeId)).toEqual(['node-1']);
  await client.drain('node-1');
  await client.resume('node-1');
  expect(asked).toEqual(['drain node-1', 'resume node-1']);
});

test('waitForNodes() resolves with the first picture of the mesh that has enough', async () => {
  const node = (nodeId: string, engineState: string) => ({ nodeId, engineState, connected: true, liveness: admin.Liveness.ALIVE });
  const client = await mesh({
    watchMesh: async (call, out) => {
      await out.write(admin.MeshSnapshot.fromPartial({ nodes: [node('a', 'ready'), node('b', 'starting')] }));
      await out.write(admin.MeshSnapshot.fromPartial({ nodes: [node('a', 'ready'), node('b', 'ready')] }));
      await new Promise((_, reject) => call.signal.addEventListener('abort', () => reject(call.signal.reason)));
    },
  });
  expect((await client.waitForNodes(2)).map((ready) => ready.nodeId)).toEqual(['a', 'b']);
});
