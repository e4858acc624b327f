/** Whatever comes in: a clean status that says what is wrong, nothing held, and the next request works. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type ClientHttp2Session, connect as connectHttp2, constants } from 'node:http2';
import net from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { generation } from '#contracts';
import { Code, Reason } from '#core';
import { Channel } from '#grpc';
import { systemClock } from '#runtime';
import { useMesh } from '../support/test-mesh.js';

const mesh = useMesh({ nodes: 1 });
const Pictures = generation.ImageGenerationServiceService;
const OUT_OF_RANGE: number = 17;
const GOOD = { prompt: 'a good one', seed: 1, width: 64, height: 64 };

const open = new Set<{ destroy(): void }>();
afterEach(() => {
  for (const connection of open) connection.destroy();
  open.clear();
});

/** The router, and a node asked directly: both judge alike. */
const servers = ['router', 'node'] as const;
const addressOf = (server: (typeof servers)[number]) => (server === 'router' ? mesh().local.address : mesh().node('node-1').grpc);

function channelTo(server: (typeof servers)[number]): Channel {
  const channel = new Channel(addressOf(server), { clock: systemClock });
  open.add({ destroy: () => channel.close() });
  return channel;
}

async function stillWorks(server: (typeof servers)[number]): Promise<void> {
  const { images } = await mesh().connect(addressOf(server)).generate(GOOD);
  expect(images).toHaveLength(1);
}

describe.each(servers)('the %s', (server) => {
  const ask = (request: Partial<generation.GenerateRequest>) =>
    channelTo(server)
      .unary(Pictures.generate, generation.GenerateRequest.fromPartial({ prompt: 'p', width: 64, height: 64, ...request }))
      .then(
        () => expect.fail('expected a refusal, got a picture'),
        (thrown) => thrown,
      );

  test('names every faulty field at once, each with what is allowed', async () => {
    const error = await ask({
      prompt: '',
      width: 63,
      height: 4096,
      steps: 9999,
      guidanceScale: Number.NaN,
      imageCount: 99,
      requestId: 'no spaces',
      loras: [{ name: 'neon', strength: 99 }],
      format: OUT_OF_RANGE as generation.ImageFormat,
      priority: OUT_OF_RANGE as generation.Priority,
    });
    expect(error).toMatchObject({ code: Code.INVALID_ARGUMENT, reason: Reason.BAD_REQUEST });
    const byField = Object.fromEntries(
      error.details.violations.map((v: { field: string; description: string }) => [v.field, v.description]),
    );
    expect(byField).toEqual({
      request_id: expect.stringContaining('up to 128 of'),
      prompt: expect.stringContaining('1 to 8192 bytes'),
      width: 'expected a multiple of 16 from 64 to 2048, got 63',
      height: 'expected a multiple of 16 from 64 to 2048, got 4096',
      steps: 'expected an integer from 1 to 200, got 9999',
      guidance_scale: 'expected a number from 0 to 10, got NaN',
      image_count: 'expected an integer from 1 to 4, got 99',
      'loras[0].strength': 'expected a number from 0 to 2, got 99',
      format: expect.stringContaining('PNG, JPEG or WEBP'),
      priority: expect.stringContaining('HIGH, NORMAL or LOW'),
    });
    await stillWorks(server);
  });

  test.each([-1, 99, 2 ** 31 - 1, -(2 ** 31)])('a priority of %d is refused like any other field', async (priority) => {
    const error = await ask({ priority: priority as generation.Priority });
    expect(error).toMatchObject({ code: Code.INVALID_ARGUMENT, details: { violations: [{ field: 'priority' }] } });
  });

  test('an unknown model is NOT_FOUND and says what there is', async () => {
    const error = await ask({ model: 'no-such-model' });
    expect(error).toMatchObject({
      code: Code.NOT_FOUND,
      reason: Reason.UNKNOWN_MODEL,
      details: { resource: { type: 'model', name: 'no-such-model' } },
    });
    expect(error.details.resource.description).toContain('scripted');
  });

  test('an unknown LoRA is NOT_FOUND and says what there is', async () => {
    const error = await ask({ loras: [{ name: 'no-such-lora' }] });
    expect(error).toMatchObject({
      code: Code.NOT_FOUND,
      reason: Reason.UNKNOWN_LORA,
      details: { resource: { type: 'lora', name: 'no-such-lora' } },
    });
    expect(error.details.resource.description).toContain('neon');
  });

  test('a prompt with too many tokens is refused by the engine, without a retry and without harm to the breaker', async () => {
    const error = await ask({ prompt: 'word '.repeat(600) });
    expect(error).toMatchObject({ code: Code.INVALID_ARGUMENT, reason: Reason.PROMPT_TOO_LONG });
    expect(error.details.metadata.limit).toBe('512');
    await stillWorks(server);
  });

  test.each([
    ['bytes of no known wire type', () => Buffer.concat([Buffer.from([0x0f]), randomBytes(300)])],
    ['a length that runs past the end', () => Buffer.from([0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f])],
    ['a varint without an end', () => Buffer.alloc(64, 0xff)],
    ['a group that is never closed', () => Buffer.from([0x0b])],
  ])('garbage instead of a request (%s): a clean status', async (_, bytes) => {
    const garbage = { ...Pictures.generate, requestSerialize: () => bytes() };
    const error = await channelTo(server)
      .unary(garbage as never, {} as never)
      .then(
        () => undefined,
        (thrown) => thrown,
      );
    expect(error?.code).toBe(Code.INVALID_ARGUMENT);
    await stillWorks(server);
  });

  test('a message over the limit is RESOURCE_EXHAUSTED', async () => {
    const error = await ask({ prompt: 'x'.repeat(17 * 1024 * 1024) });
    expect(error.code).toBe(Code.RESOURCE_EXHAUSTED);
    await stillWorks(server);
  });

  test('a method that does not exist is UNIMPLEMENTED', async () => {
    const method = { ...Pictures.generate, path: '/diffusionmesh.v1.ImageGenerationService/Paint' };
    await expect(channelTo(server).unary(method, generation.GenerateRequest.fromPartial({}))).rejects.toMatchObject({
      code: Code.UNIMPLEMENTED,
    });
  });

  test('connections that send junk or nothing cost nothing but a file descriptor, and only while they last', async () => {
    const process = server === 'router' ? mesh().router : mesh().node('node-1');
    const descriptors = async () => (await mesh().figures(process)).sum('process_open_fds');
    await stillWorks(server);
    const before = await descriptors();
    const junk = [
      Buffer.alloc(0),
      Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
      randomBytes(4096),
      Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
      Buffer.from('PRI * HTTP/2.0\r\n'),
      Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), randomBytes(1024)]),
    ];
    const sockets: net.Socket[] = [];
    for (let round = 0; round < 5; round++) for (const bytes of junk) sockets.push(await tcp(addressOf(server), bytes));
    await stillWorks(server);
    for (const socket of sockets) socket.destroy();
    await expect.poll(descriptors, { timeout: 10_000 }).toBeLessThanOrEqual(before + 3);
    await stillWorks(server);
  });

  test('a call that is begun and never finished holds no slot, and goes with its connection', async () => {
    const session = await http2(addressOf(server));
    const stream = session.request({
      ':method': 'POST',
      ':path': Pictures.generate.path,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    stream.on('error', () => {}); // cut below, on purpose
    stream.write(Buffer.from([0, 0, 0, 0, 100, 1, 2, 3])); // 100 bytes announced, 3 sent
    await stillWorks(server);
    session.destroy();
    await mesh().quiet();
  });

  test('a frame that lies about its length is a clean error on its own stream', async () => {
    const session = await http2(addressOf(server));
    const stream = session.request({
      ':method': 'POST',
      ':path': Pictures.generate.path,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    stream.on('error', () => {}); // a reset is as good an answer as a status
    stream.end(Buffer.from([0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]));
    stream.resume();
    await once(stream, 'close');
    expect(stream.rstCode === constants.NGHTTP2_NO_ERROR || stream.rstCode > 0).toBe(true);
    await stillWorks(server);
  });
});

async function tcp(address: string, bytes: Buffer): Promise<net.Socket> {
  const [host = '', port] = address.split(':');
  const socket = net.connect(Number(port), host);
  socket.on('error', () => {}); // a server may well cut a connection that sends junk
  open.add(socket);
  await once(socket, 'connect');
  socket.write(bytes);
  return socket;
}

async function http2(address: string): Promise<ClientHttp2Session> {
  const session = connectHttp2(`http://${address}`);
  session.on('error', () => {}); // destroyed by the test
  open.add({ destroy: () => session.destroy() });
  await once(session, 'connect');
  return session;
}

test('without any node: waits for the configured time, then UNAVAILABLE/NO_NODES with a time to come back', async () => {
  const lonely = await mesh().local.addRouter({ env: { NATS_URL: 'nats://127.0.0.1:1', DMESH_ROUTER_NO_NODES_WAIT: '300ms' } });
  try {
    const channel = new Channel(lonely.grpc, { clock: systemClock });
    open.add({ destroy: () => channel.close() });
    const startedAt = systemClock.now();
    const error = await channel.unary(Pictures.generate, generation.GenerateRequest.fromPartial({ prompt: 'p' })).catch((thrown) => thrown);
    expect(error).toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.NO_NODES });
    expect(error.details.retryDelayMs).toBeGreaterThan(0);
    expect(systemClock.now() - startedAt).toBeGreaterThanOrEqual(290);
  } finally {
    await lonely.stop(5000);
  }
});

test('a thousand callers with one request id: one picture drawn, each has its answer, and the router keeps its wits', async () => {
  const router = mesh().router;
  const node = mesh().node('node-1');
  const drawn = async () => (await mesh().figures(node)).by('dmesh_node_draws_total', 'reason').OK ?? 0;
  await stillWorks('router');
  const drawnBefore = await drawn();
  const memoryBefore = (await mesh().figures(router)).sum('process_resident_memory_bytes');
  const request = generation.GenerateRequest.fromPartial({
    requestId: 'all-the-same',
    seed: 5n,
    prompt: '[step=60ms] x',
    steps: 10,
    width: 64,
    height: 64,
  });
  const channels = Array.from({ length: 10 }, () => channelTo('router'));
  const unary = async (channel: Channel) => (await channel.unary(Pictures.generate, request)).response.requestId;
  const streamed = async (channel: Channel) => {
    for await (const { event } of channel.serverStream(Pictures.generateStream, request)) {
      if (event?.$case === 'completed') return event.value.requestId;
    }
    return 'none';
  };
  const callers = channels.flatMap((channel) => [...Array(70).fill(unary), ...Array(30).fill(streamed)].map((call) => call(channel)));
  const answers = await Promise.all(callers);
  expect(answers).toHaveLength(1000);
  expect(new Set(answers)).toEqual(new Set(['all-the-same']));
  // One for those who want it in one piece, one for the streams; late callers may start another.
  expect(await drawn()).toBeLessThan(drawnBefore + 10);
  const figures = await mesh().figures(router);
  expect(figures.sum('process_resident_memory_bytes') - memoryBefore).toBeLessThan(300 * 1024 * 1024);
  await mesh().quiet();
});
