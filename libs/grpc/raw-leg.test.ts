import { constants, createServer, type Http2Session, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import { type AddressInfo, createServer as createSocketServer, type Server as NetServer, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { generation } from '#contracts';
import { badRequest, Code, Reason, StatusError } from '#core';
import { systemClock } from '#runtime';
import { Channel, type ChannelOptions } from './channel.js';
import type { HandlersOf } from './method.js';
import { openConnection } from './raw-connection.js';
import { Server } from './server.js';

const Service = generation.ImageGenerationServiceService;
const { GenerateEvent, GenerateRequest, GenerateResponse } = generation;
const request = GenerateRequest.fromPartial({ prompt: 'a red circle' });
const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

function connect(port: number, options: Partial<ChannelOptions> = {}): Channel {
  const channel = new Channel(`127.0.0.1:${port}`, { clock: systemClock, ...options });
  cleanups.push(() => channel.close());
  return channel;
}

/** A gRPC server as nodes have it. */
async function serve(handlers: Partial<HandlersOf<typeof Service>>, port = 0) {
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20 });
  const none = () => Promise.reject(new Error('not part of this test'));
  server.add(Service, { generate: none, generateStream: none, listModels: none, ...handlers } as HandlersOf<typeof Service>);
  const bound = await server.listen(`127.0.0.1:${port}`);
  cleanups.push(() => server.close());
  return { server, port: bound };
}

/** An HTTP/2 server that may do what no gRPC server does. */
async function misbehave(onStream: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void) {
  const sessions: Http2Session[] = [];
  const server = createServer();
  server.on('session', (session) => sessions.push(session));
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    onStream(stream, headers);
  });
  const stop = () => {
    for (const session of sessions) session.destroy();
    return closed(server);
  };
  cleanups.push(stop);
  return { port: await listening(server), sessions, stop };
}

/** A TCP server; `hello` is the first it sends. Nothing else comes from it, not even a farewell. */
async function fallSilent(hello: Buffer, onSocket = () => {}) {
  const sockets: Socket[] = [];
  const server = createSocketServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket);
    socket.on('error', () => {}).resume();
    socket.write(hello);
    onSocket();
  });
  cleanups.push(() => {
    for (const socket of sockets) socket.destroy();
    return closed(server);
  });
  return listening(server);
}

function listening(server: Pick<NetServer, 'listen' | 'address'>): Promise<number> {
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)));
}

function closed(server: Pick<NetServer, 'close'>): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}

/** An answer of headers, these bytes, and a status of OK. */
function answerWith(stream: ServerHttp2Stream, ...chunks: Uint8Array[]): void {
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.once('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
  for (const chunk of chunks) stream.write(chunk);
  stream.end();
}

const frame = (message: Uint8Array, flag = 0) => {
  const header = Buffer.from([flag, 0, 0, 0, 0]);
  header.writeUInt32BE(message.length, 1);
  return Buffer.concat([header, message]);
};
const picture = Buffer.from(Uint8Array.from({ length: 1_500_000 }, (_, i) => i % 251));
const answer = GenerateResponse.fromPartial({ images: [{ data: picture }], requestId: 'r' });

test('a call that was prepared for finds its connection open, and there is one for both', async () => {
  const { port, sessions } = await misbehave((stream) => {
    stream.respond({ ':status': 200, 'grpc-status': '5' }, { endStream: true });
  });
  const channel = connect(port);
  channel.prepareRaw();
  channel.prepareRaw();
  await expect.poll(() => sessions.length).toBe(1);
  await expect(channel.unaryRaw(Service.generate, request)).rejects.toMatchObject({ code: Code.NOT_FOUND });
  expect(sessions.length).toBe(1);
});

test('what was prepared in vain is told to the call', async () => {
  const { port, stop } = await misbehave(() => {});
  await stop();
  const channel = connect(port);
  channel.prepareRaw();
  await expect(channel.unaryRaw(Service.generate, request)).rejects.toMatchObject({ reason: Reason.CONNECT_FAILED });
});

test('a large answer comes as it was sent, with its trailers', async () => {
  const { port } = await serve({
    generate: async (call) => {
      call.trailers['x-mesh-node'] = `${call.metadata['x-request-id']}`;
      return answer;
    },
  });
  const { response, trailers } = await connect(port).unaryRaw(Service.generate, request, { metadata: { 'x-request-id': 'r7' } });
  expect(response.pieces.length).toBeGreaterThan(20);
  expect(response.toBuffer().equals(GenerateResponse.encode(answer).finish())).toBe(true);
  expect(trailers).toEqual({ 'x-mesh-node': 'r7' });
});

test.each([1, 4, 5, 6, 7, 1000])('messages are told apart wherever the network cuts them, here every %i bytes', async (size) => {
  const events = [1, 2, 3].map((step) => GenerateEvent.fromPartial({ event: { $case: 'step', value: { step, total: 3 } } }));
  const bytes = Buffer.concat([frame(Buffer.alloc(0)), ...events.map((event) => frame(GenerateEvent.encode(event).finish()))]);
  const { port } = await misbehave((stream) => {
    const chunks: Buffer[] = [];
    for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size));
    answerWith(stream, ...chunks);
  });
  const read: unknown[] = [];
  for await (const message of connect(port).serverStreamRaw(Service.generateStream, request))
    read.push(GenerateEvent.decode(message.toBuffer()));
  expect(read).toEqual([GenerateEvent.fromPartial({}), ...events]);
});

const violations = [{ field: 'prompt', description: 'expected 100 % of 红色, got "a,b/c?"' }];
test.each([
  ['violations', badRequest(violations)],
  ['time to retry', new StatusError({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.QUEUE_FULL, message: 'full', retryDelayMs: 1500 })],
  ['figures', new StatusError({ code: Code.UNAVAILABLE, reason: Reason.DRAINING, message: 'stopping', metadata: { a: 'b' } })],
  ['no text', new StatusError({ code: Code.NOT_FOUND, reason: Reason.UNKNOWN_NODE, message: '' })],
])('an error with %s is the one that grpc-js reads', async (_name, error) => {
  const { port } = await serve({ generate: () => Promise.reject(error) });
  const channel = connect(port);
  const seen = (thrown: unknown) => {
    const { code, reason, message, details } = StatusError.from(thrown);
    return { code, reason, message, details };
  };
  const raw = await channel.unaryRaw(Service.generate, request).then(() => 'an answer', seen);
  expect(raw).toEqual(await channel.unary(Service.generate, request).then(() => 'an answer too', seen));
  expect(raw).toMatchObject({ code: error.code, reason: error.reason, details: error.details });
});

test('an error after messages comes after them', async () => {
  const { port } = await serve({
    generateStream: async (_call, out) => {
      await out.write({ event: { $case: 'step', value: { step: 1, total: 3, imageIndex: 0 } } });
      throw new StatusError({ code: Code.INTERNAL, reason: Reason.NAN_OUTPUT, message: 'not a number' });
    },
  });
  let count = 0;
  const read = async () => {
    for await (const _message of connect(port).serverStreamRaw(Service.generateStream, request)) count++;
  };
  await expect(read()).rejects.toMatchObject({ code: Code.INTERNAL, reason: Reason.NAN_OUTPUT, message: 'not a number' });
  expect(count).toBe(1);
});

test("a cancel ends the call with the signal's reason and reaches the handler", async () => {
  const entered = deferred<void>();
  const gone = deferred<unknown>();
  const { port } = await serve({
    generate: (call) =>
      new Promise((_, reject) => {
        entered.resolve();
        call.signal.addEventListener('abort', () => {
          gone.resolve(call.signal.reason);
          reject(call.signal.reason);
        });
      }),
  });
  const abort = new AbortController();
  const running = connect(port).unaryRaw(Service.generate, request, { signal: abort.signal });
  await entered.promise;
  const reason = new StatusError({ code: Code.ABORTED, reason: Reason.POISON, message: 'enough' });
  abort.abort(reason);
  await expect(running).rejects.toBe(reason);
  expect(await gone.promise).toMatchObject({ code: Code.CANCELLED });
});

test('a signal that has aborted sends nothing', async () => {
  let calls = 0;
  const { port } = await misbehave(() => calls++);
  const channel = connect(port);
  await expect(channel.unaryRaw(Service.generate, request, { signal: AbortSignal.abort() })).rejects.toMatchObject({
    code: Code.CANCELLED,
  });
  const abort = new AbortController();
  const connecting = channel.unaryRaw(Service.generate, request, { signal: abort.signal });
  abort.abort();
  await expect(connecting).rejects.toMatchObject({ code: Code.CANCELLED });
  expect(calls).toBe(0);
});

test('a deadline travels, and ends the call of a peer that minds none', async () => {
  const timeouts: string[] = [];
  const { port } = await misbehave((_stream, headers) => timeouts.push(String(headers['grpc-timeout'])));
  const late = connect(port).unaryRaw(Service.generate, request, { deadlineAt: systemClock.now() + 1000 });
  await expect(late).rejects.toMatchObject({ code: Code.DEADLINE_EXCEEDED, reason: Reason.DEADLINE });
  const leftMs = Number(/^(\d+)m$/.exec(timeouts[0] ?? '')?.[1]);
  expect(leftMs).toBeGreaterThan(0);
  expect(leftMs).toBeLessThanOrEqual(1000);
  const past = connect(port).unaryRaw(Service.generate, request, { deadlineAt: systemClock.now() });
  await expect(past).rejects.toMatchObject({ code: Code.DEADLINE_EXCEEDED, reason: Reason.DEADLINE });
  expect(timeouts).toHaveLength(1);
});

test('a peer that dies half-way may have run it; one that is away has not; one that is back is found within a second', async () => {
  const dying = await misbehave((stream) => {
    stream.respond({ ':status': 200 });
    stream.write(frame(picture).subarray(0, 100_000), () => void dying.stop());
  });
  const channel = connect(dying.port);
  const call = () => channel.unaryRaw(Service.generate, request);
  await expect(call()).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.CONNECTION_LOST });
  for (let attempt = 0; attempt < 5; attempt++) {
    await expect(call()).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.CONNECT_FAILED });
  }
  await serve({ generate: async () => answer }, dying.port);
  await expect.poll(() => call().then(() => 'answered', String), { timeout: 2000, interval: 50 }).toBe('answered');
});

test.each([
  ['bytes that are no frame', [Buffer.from('<html>no gRPC here</html>')]],
  ['compressed messages', [frame(Buffer.from([8, 1]), 1)]],
  ['halves of messages', [frame(picture).subarray(0, 70_000)]],
  ['parts of a header', [Buffer.from([0, 0])]],
  ['two messages in place of one', [frame(Buffer.from([8, 1])), frame(Buffer.from([8, 1]))]],
  ['answers without a message', []],
])('%s are a broken stream', async (_name, chunks) => {
  const { port } = await misbehave((stream) => answerWith(stream, ...chunks));
  const call = connect(port).unaryRaw(Service.generate, request);
  await expect(call).rejects.toMatchObject({ code: Code.INTERNAL, reason: Reason.BAD_STREAM });
});

test('an address that is none is no connection', async () => {
  const channel = new Channel('no address:x', { clock: systemClock });
  cleanups.push(() => channel.close());
  await expect(channel.unaryRaw(Service.generate, request)).rejects.toMatchObject({ reason: Reason.CONNECT_FAILED });
});

test('an HTTP status is no answer', async () => {
  const { port } = await misbehave((stream) => {
    stream.respond({ ':status': 503 });
    stream.end('try later');
  });
  const call = connect(port).unaryRaw(Service.generate, request);
  await expect(call).rejects.toMatchObject({ reason: Reason.BAD_STREAM });
});

test('a message over the limit is refused at its header', async () => {
  const { port } = await serve({ generate: async () => answer });
  const call = connect(port, { maxResponseBytes: 1_000_000 }).unaryRaw(Service.generate, request);
  await expect(call).rejects.toMatchObject({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.MESSAGE_TOO_LARGE });
});

test('a stream reads no further than its reader; leaving it cancels', async () => {
  const event = GenerateEvent.fromPartial({ event: { $case: 'image', value: { data: Buffer.alloc(1 << 20) } } });
  const cancelled = deferred<void>();
  let written = 0;
  const { port } = await serve({
    generateStream: async (call, out) => {
      call.signal.addEventListener('abort', () => cancelled.resolve());
      for (; written < 100; written++) await out.write(event);
    },
    generate: async () => answer,
  });
  const channel = connect(port);
  for await (const message of channel.serverStreamRaw(Service.generateStream, request)) {
    expect(message.byteLength).toBeGreaterThan(1 << 20);
    // Other calls on the same connection go on meanwhile, and give the stream time to run away.
    for (let i = 0; i < 10; i++) await channel.unaryRaw(Service.generate, request);
    break;
  }
  await cancelled.promise;
  expect(written).toBeLessThan(20); // the window, what lies in buffers of the system, and the one that was read
});

test('a slow reader gets everything, in order', async () => {
  const { port } = await serve({
    generateStream: async (_call, out) => {
      for (let step = 1; step <= 300; step++) await out.write({ event: { $case: 'step', value: { step, total: 300, imageIndex: 0 } } });
    },
  });
  const steps: number[] = [];
  for await (const message of connect(port).serverStreamRaw(Service.generateStream, request)) {
    const { event } = GenerateEvent.decode(message.toBuffer());
    if (event?.$case === 'step') steps.push(event.value.step);
    if (steps.length % 50 === 0) await systemClock.sleep(1);
  }
  expect(steps).toEqual(Array.from({ length: 300 }, (_, i) => i + 1));
});

test('GOAWAY lets a running call end, and the next one connects anew', async () => {
  const arrived = deferred<ServerHttp2Stream>();
  const peer = await misbehave((stream) =>
    peer.sessions.length === 1 ? arrived.resolve(stream) : answerWith(stream, frame(Buffer.from([]))),
  );
  const channel = connect(peer.port);
  const running = channel.unaryRaw(Service.generate, request);
  const stream = await arrived.promise;
  peer.sessions[0]?.goaway();
  await expect.poll(() => channel.unaryRaw(Service.generate, request).then(() => peer.sessions.length)).toBe(2);
  answerWith(stream, frame(Buffer.from([8, 1])));
  expect((await running).response.byteLength).toBe(2);
});

test('a refused call has not run', async () => {
  const { port } = await misbehave((stream) => stream.close(constants.NGHTTP2_REFUSED_STREAM));
  await expect(connect(port).unaryRaw(Service.generate, request)).rejects.toMatchObject({ reason: Reason.CONNECT_FAILED });
});

test('a call that is cut off by GOAWAY with an error may have run', async () => {
  const { port } = await misbehave((stream) => stream.session?.goaway(constants.NGHTTP2_INTERNAL_ERROR));
  await expect(connect(port).unaryRaw(Service.generate, request)).rejects.toMatchObject({ reason: Reason.CONNECTION_LOST });
});

test.each([
  ['INTERNAL_ERROR', constants.NGHTTP2_INTERNAL_ERROR],
  ['CANCEL', constants.NGHTTP2_CANCEL],
  ['ENHANCE_YOUR_CALM', constants.NGHTTP2_ENHANCE_YOUR_CALM],
])('a stream reset with %s, and no status, is a connection lost', async (_name, code) => {
  const { port } = await misbehave((stream) => stream.close(code));
  const call = connect(port).unaryRaw(Service.generate, request);
  await expect(call).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.CONNECTION_LOST });
});

const SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
test('a frozen peer is found within two keepalives', async () => {
  const startedAt = systemClock.now();
  const frozen = connect(await fallSilent(SETTINGS), { keepaliveMs: 100 }).unaryRaw(Service.generate, request);
  await expect(frozen).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.CONNECTION_LOST });
  const dumb = connect(await fallSilent(Buffer.alloc(0)), { keepaliveMs: 100 }).unaryRaw(Service.generate, request);
  await expect(dumb).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.CONNECT_FAILED });
  expect(systemClock.now() - startedAt).toBeLessThan(2000);
});

test.each(['before', 'after'])('closing %s a silent peer has accepted fails the calls that wait for it', async (when) => {
  const accepted = deferred<void>();
  const channel = connect(await fallSilent(Buffer.alloc(0), () => accepted.resolve()));
  const call = channel.unaryRaw(Service.generate, request);
  if (when === 'after') await accepted.promise;
  channel.close();
  await expect(call).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.CONNECT_FAILED });
});

test('pings that are answered keep a connection', async () => {
  const { port } = await serve({
    generate: async (call) => {
      await systemClock.sleep(300, call.signal);
      return answer;
    },
  });
  const { response } = await connect(port, { keepaliveMs: 20 }).unaryRaw(Service.generate, request);
  expect(response.byteLength).toBeGreaterThan(1_500_000);
});

test('a connection that is given up in the very turn it is made fails its calls and nothing else', async () => {
  const { port } = await serve({});
  let giveUp = () => {};
  const schedule = (_ms: number, callback: () => void) => {
    giveUp = callback;
    return () => {};
  };
  const options = { clock: { ...systemClock, schedule }, windowBytes: 1 << 20, connectTimeoutMs: 1000 };
  const { ready, session } = openConnection(`127.0.0.1:${port}`, options);
  // After node:http2 has heard of the socket and before it says so: a late timer comes first on a busy machine.
  session.socket.once('connect', () => giveUp());
  const connected = new Promise<boolean>((resolve) => session.once('connect', () => resolve(session.destroyed)));
  await expect(ready).rejects.toMatchObject({ reason: Reason.CONNECT_FAILED, message: expect.stringContaining('1000 ms') });
  expect(await connected).toBe(true);
});

test('a process that was held up itself reads what has come before it takes a peer for frozen', async () => {
  const { port } = await serve({
    generate: async (call) => {
      await systemClock.sleep(100, call.signal);
      return answer;
    },
  });
  const keepaliveMs = 500;
  // As after a long turn of the event loop: what waits for a ping falls due before its answer can be read.
  const schedule = (ms: number, callback: () => void) => {
    if (ms !== keepaliveMs) return systemClock.schedule(20 * ms, callback); // time to read, on a busy machine too
    queueMicrotask(callback);
    return () => {};
  };
  const { response } = await connect(port, { clock: { ...systemClock, schedule }, keepaliveMs }).unaryRaw(Service.generate, request);
  expect(response.byteLength).toBeGreaterThan(1_500_000);
});

test('closing lets running calls end', async () => {
  const entered = deferred<void>();
  const release = deferred<void>();
  const { port } = await serve({
    generate: async () => {
      entered.resolve();
      await release.promise;
      return answer;
    },
  });
  const channel = connect(port);
  const running = channel.unaryRaw(Service.generate, request);
  await entered.promise;
  channel.close();
  release.resolve();
  expect((await running).response.byteLength).toBeGreaterThan(1_500_000);
});

function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((r) => {
    resolve = r;
  });
  return { promise, resolve };
}
