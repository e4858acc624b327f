import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import net, { type AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Webhook as Signer } from 'standardwebhooks';
import { afterEach, expect, test, vi } from 'vitest';
import { generation } from '#contracts';
import { Code } from '#core';
import { makeDevCa } from '../../../test/support/dev-ca.js';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { type Job, type State, UNTOLD } from '../domain/job.js';
import { addressRule } from './addresses.js';
import { Deliverer } from './deliverer.js';
import type { WebhookEvent } from './events.js';
import { Outbox } from './outbox.js';
import type { Resolve } from './resolve.js';

const signer = new Signer(`whsec_${Buffer.alloc(32, 7).toString('base64')}`);
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A receiver on 127.0.0.1, or another address of this machine; `url` is that of its root. */
async function receiver(handler: http.RequestListener, host = '127.0.0.1', port = 0) {
  const hits: string[] = [];
  const server = http.createServer((request, response) => {
    hits.push(request.url ?? '');
    handler(request, response);
  });
  server.listen(port, host);
  await once(server, 'listening');
  cleanups.push(
    () => new Promise((resolve) => server.close(resolve)),
    () => server.closeAllConnections(),
  );
  const { port: bound } = server.address() as AddressInfo;
  return { url: `http://${host}:${bound}/`, port: bound, hits, server };
}

/** Speaks bytes instead of HTTP. */
async function rawReceiver(onSocket: (socket: net.Socket) => void) {
  const sockets = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket.on('error', () => {}));
    onSocket(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanups.push(
    () => new Promise((resolve) => server.close(resolve)),
    () => sockets.forEach((socket) => void socket.destroy()),
  );
  return { port: (server.address() as AddressInfo).port, sockets };
}

const ENDED: State = {
  kind: 'succeeded',
  nodeId: 'n',
  startedAtMs: 2000,
  endedAtMs: 3000,
  result: {
    images: [{ blob: 'a/b', mimeType: 'image/png', width: 64, height: 32, seed: 2n ** 63n, sizeBytes: 9, sha256: 'ff' }],
    used: generation.UsedParameters.fromPartial({ model: 'm' }),
    executingMs: 5,
  },
};
function jobFor(url: string, state = ENDED): Job {
  return {
    uid: 'u1',
    tenant: 'acme',
    jobId: 'j1',
    batchId: 'b1',
    request: generation.GenerateRequest.fromPartial({ prompt: 'a red circle' }),
    priority: 'low',
    submittedAtMs: 1000,
    expiresAtMs: 9000,
    round: 1,
    attempt: 2,
    failedAttempts: 1,
    state,
    webhook: { url, ...UNTOLD, state: 'pending', eventId: 'u1-1', nextAttemptAtMs: 3000 },
  };
}

const noName: Resolve = async (host) => expect.fail(`asked for ${host}`);

function delivererOf({ allow = '127.0.0.1', resolve = noName }: { allow?: string; resolve?: Resolve } = {}) {
  const clock = new ManualClock();
  const events: WebhookEvent[] = [];
  const deliverer = new Deliverer({
    book: { signerFor: (tenant) => (tenant === 'acme' ? signer : undefined) },
    isAllowed: addressRule(allow),
    resolve,
    clock,
    wallNow: Date.now,
    emit: (event) => events.push(event),
    connectTimeoutMs: 5000,
    timeoutMs: 15_000,
  });
  const deliver = (url: string) => deliverer.deliver(jobFor(url), new AbortController().signal);
  return { deliverer, deliver, clock, events };
}

async function bodyOf(request: http.IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

test('a receiver gets what Standard Webhooks verifies, and nothing that was drawn', async () => {
  const taken: { body: string; headers: http.IncomingHttpHeaders }[] = [];
  const { url, server } = await receiver(async (request, response) => {
    taken.push({ body: await bodyOf(request), headers: request.headers });
    response.end('thank you');
  });
  const { deliver, clock, events } = delivererOf();
  expect(await deliver(`${url}hook?key=1`)).toEqual({ kind: 'delivered' });
  const { body = '', headers = {} } = taken[0] ?? {};
  expect(signer.verify(body, headers as Record<string, string>)).toEqual({
    type: 'job.succeeded',
    timestamp: '1970-01-01T00:00:03.000Z',
    data: {
      job_id: 'j1',
      tenant: 'acme',
      batch_id: 'b1',
      state: 'succeeded',
      attempt: 2,
      submitted_at: '1970-01-01T00:00:01.000Z',
      images: [{ sha256: 'ff', size_bytes: 9, mime_type: 'image/png', width: 64, height: 32, seed: '9223372036854775808' }],
    },
  });
  expect(headers).toMatchObject({ 'webhook-id': 'u1-1', 'content-type': 'application/json', 'user-agent': 'diffusion-mesh' });
  expect(body).not.toContain('red circle');
  expect(() => signer.verify(body.replace('succeeded', 'failed'), headers as Record<string, string>)).toThrow('No matching signature');
  expect(events).toEqual([
    {
      type: 'webhookAttempted',
      ...{ tenant: 'acme', jobId: 'j1', eventId: 'u1-1', host: new URL(url).host, result: 'delivered', error: '' },
      durationMs: expect.any(Number),
    },
  ]);
  expect(clock.pendingCount).toBe(0);
  await expect.poll(() => new Promise((resolve) => server.getConnections((_, count) => resolve(count)))).toBe(0);
});

test.each<[State, object]>([
  [
    { kind: 'cancelled', endedAtMs: 3000 },
    { type: 'job.cancelled', data: { state: 'cancelled' } },
  ],
  [
    { kind: 'expired', endedAtMs: 3000 },
    { type: 'job.expired', data: { state: 'expired' } },
  ],
  [
    { kind: 'failed', endedAtMs: 3000, failure: { code: Code.INTERNAL, reason: 'NAN_OUTPUT', message: 'numbers that are none' } },
    { type: 'job.failed', data: { state: 'failed', failure: { reason: 'NAN_OUTPUT', message: 'numbers that are none' } } },
  ],
])('the end $kind is told', async (state, message) => {
  const bodies: string[] = [];
  const { url } = await receiver(async (request, response) => {
    bodies.push(await bodyOf(request));
    response.writeHead(204).end();
  });
  const { deliverer } = delivererOf();
  expect(await deliverer.deliver(jobFor(url, state), new AbortController().signal)).toEqual({ kind: 'delivered' });
  expect(JSON.parse(bodies[0] ?? '')).toMatchObject(message);
});

test('a job that has not ended, or has no webhook, tells nothing', async () => {
  const { deliverer } = delivererOf();
  const { signal } = new AbortController();
  const { webhook: _, ...mute } = jobFor('http://127.0.0.1:1/');
  expect(await deliverer.deliver(mute, signal)).toBeUndefined();
  expect(await deliverer.deliver(jobFor('http://127.0.0.1:1/', { kind: 'queued', notBeforeMs: 0 }), signal)).toBeUndefined();
});

test.each([
  [500, { kind: 'failed', reason: 'status', error: 'answered 500' }],
  [404, { kind: 'failed', reason: 'status', error: 'answered 404' }],
  [410, { kind: 'unwanted', reason: 'gone', error: 'answered 410: it wants no more' }],
  [202, { kind: 'delivered' }],
])('an answer %i', async (status, outcome) => {
  const { url } = await receiver((_, response) => response.writeHead(status).end('words of the receiver'));
  expect(await delivererOf().deliver(url)).toEqual(outcome);
});

test.each([301, 302, 303, 307, 308])('a redirect %i is not followed', async (status) => {
  const elsewhere = await receiver((_, response) => response.end());
  const { url } = await receiver((_, response) => response.writeHead(status, { location: elsewhere.url }).end());
  const error = `answered ${status}; redirects are not followed`;
  expect(await delivererOf().deliver(url)).toEqual({ kind: 'failed', reason: 'redirect', error });
  expect(elsewhere.hits).toEqual([]);
});

test.each([
  [200, { kind: 'delivered' }],
  [500, { kind: 'failed', reason: 'status', error: 'answered 500' }],
])('an answer %i of 1 GB is cut off; its status counts', async (status, outcome) => {
  let sentBytes = 0;
  const { url } = await receiver((_, response) => {
    response.writeHead(status, { 'content-length': 2 ** 30 });
    const chunks = function* () {
      for (; sentBytes < 2 ** 30; sentBytes += 65_536) yield Buffer.alloc(65_536);
    };
    pipeline(Readable.from(chunks()), response).catch(() => {}); // cut off
  });
  expect(await delivererOf().deliver(url)).toEqual(outcome);
  expect(sentBytes).toBeLessThan(64 * 2 ** 20); // what the buffers of both sides took
});

test('headers without end are cut off', async () => {
  const { port } = await rawReceiver((socket) => {
    socket.write('HTTP/1.1 200 OK\r\n');
    const more = () => {
      while (!socket.destroyed && socket.write(`x: ${'x'.repeat(1000)}\r\n`));
    };
    socket.on('drain', more);
    more();
  });
  const outcome = await delivererOf().deliver(`http://127.0.0.1:${port}/`);
  expect(outcome).toEqual({ kind: 'failed', reason: 'lost', error: 'the connection broke: HPE_HEADER_OVERFLOW' });
});

test('a receiver that takes the request and hangs is left at the time limit', async () => {
  const { url, hits } = await receiver(() => {});
  const { deliver, clock } = delivererOf();
  const outcome = deliver(url);
  await expect.poll(() => hits).toHaveLength(1);
  await clock.advance(15_000);
  expect(await outcome).toEqual({ kind: 'failed', reason: 'timeout', error: 'no answer within 15000 ms' });
  expect(clock.pendingCount).toBe(0);
});

/** Sends `head`, then a byte every few milliseconds, for ever. */
async function drip(head: string) {
  let dripped = 0;
  const { port } = await rawReceiver((socket) => {
    socket.write(head);
    const timer = setInterval(() => {
      socket.write('x');
      dripped++;
    }, 5);
    socket.on('close', () => clearInterval(timer));
  });
  return { url: `http://127.0.0.1:${port}/`, dripped: () => dripped };
}

test('headers that come byte by byte end at the time limit', async () => {
  const { url, dripped } = await drip('HTTP/1.1 200 OK\r\nx-');
  const { deliver, clock } = delivererOf();
  const outcome = deliver(url);
  await expect.poll(dripped).toBeGreaterThan(3);
  await clock.advance(15_000);
  expect(await outcome).toEqual({ kind: 'failed', reason: 'timeout', error: 'no answer within 15000 ms' });
});

test('an answer that comes byte by byte ends at the time limit; its status counts', async () => {
  const { url, dripped } = await drip('HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n');
  const { deliver, clock } = delivererOf();
  const outcome = deliver(url);
  await expect.poll(dripped).toBeGreaterThan(3);
  await clock.advance(15_000);
  expect(await outcome).toEqual({ kind: 'delivered' });
  expect(clock.pendingCount).toBe(0);
});

test.each([
  ['without a word', '', 'failed'],
  ['within the headers', 'HTTP/1.1 200 OK\r\ncontent-len', 'failed'],
  ['with something else than HTTP', 'SSH-2.0-OpenSSH_9.6\r\n', 'failed'],
  ['to speak something else', 'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n', 'failed'],
  ['within the body', 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf', 'delivered'],
])('a receiver that closes %s', async (_, words, kind) => {
  const { port } = await rawReceiver((socket) => socket.once('data', () => socket.end(words)));
  expect(await delivererOf().deliver(`http://127.0.0.1:${port}/`)).toMatchObject({ kind, ...(kind === 'failed' && { reason: 'lost' }) });
});

test('nobody listens', async () => {
  const { port, server } = await receiver(() => {});
  await new Promise((resolve) => server.close(resolve));
  const outcome = await delivererOf().deliver(`http://127.0.0.1:${port}/`);
  expect(outcome).toEqual({ kind: 'failed', reason: 'connect', error: 'no connection: ECONNREFUSED' });
});

test('a TLS handshake that does not come ends at the time limit for connections', async () => {
  const { port, sockets } = await rawReceiver(() => {});
  const { deliver, clock } = delivererOf();
  const outcome = deliver(`https://127.0.0.1:${port}/`);
  await expect.poll(() => sockets.size).toBe(1);
  await clock.advance(5000);
  expect(await outcome).toEqual({ kind: 'failed', reason: 'timeout', error: 'no connection within 5000 ms' });
});

test('a certificate of a CA that is not known is refused, whatever the environment says', async () => {
  const ca = await makeDevCa();
  cleanups.push(ca.drop);
  vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', '0');
  cleanups.push(() => vi.unstubAllEnvs());
  const [cert, key] = await Promise.all(['router.pem', 'router.key'].map((name) => readFile(ca.file(name))));
  const hits: string[] = [];
  const server = https.createServer({ cert, key }, (request) => hits.push(request.url ?? ''));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanups.push(() => server.close());
  const outcome = await delivererOf().deliver(`https://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  expect(outcome).toMatchObject({
    kind: 'failed',
    reason: 'connect',
    error: expect.stringMatching(/^no connection: [A-Z_]*(SELF_SIGNED|VERIFY)/),
  });
  expect(hits).toEqual([]);
});

test('a name that leads to an address webhooks may not go to is refused, without naming it', async () => {
  const inner = await receiver((_, response) => response.end(), '127.0.0.2');
  const { deliver } = delivererOf({ resolve: async () => ['127.0.0.2', '10.0.0.1', 'fd00::1', '::ffff:127.0.0.2'] });
  const outcome = await deliver(`http://inner.example:${inner.port}/`);
  expect(outcome).toEqual({ kind: 'failed', reason: 'address', error: 'its name leads to no address that webhooks may go to' });
  expect(inner.hits).toEqual([]);
});

test('of several addresses only those are asked that webhooks may go to', async () => {
  const outer = await receiver((_, response) => response.end());
  const inner = await receiver((_, response) => response.end(), '127.0.0.2', outer.port);
  const { deliver } = delivererOf({ resolve: async () => ['127.0.0.2', '127.0.0.1'] });
  expect(await deliver(`http://both.example:${outer.port}/`)).toEqual({ kind: 'delivered' });
  expect([outer.hits.length, inner.hits.length]).toEqual([1, 0]);
});

test('the next address is asked where one does not answer', async () => {
  const { port, hits } = await receiver((_, response) => response.end());
  const { deliver } = delivererOf({ allow: '127.0.0.0/8', resolve: async () => ['127.0.0.3', '127.0.0.1'] });
  expect(await deliver(`http://two.example:${port}/`)).toEqual({ kind: 'delivered' });
  expect(hits).toHaveLength(1);
});

test('a name that leads elsewhere from one moment to the next gains nothing', async () => {
  const outer = await receiver((_, response) => response.end());
  const inner = await receiver((_, response) => response.end(), '127.0.0.2', outer.port);
  let asked = 0;
  const { deliver } = delivererOf({ resolve: async () => [asked++ === 0 ? '127.0.0.1' : '127.0.0.2'] });
  const url = `http://rebound.example:${outer.port}/`;
  expect(await deliver(url)).toEqual({ kind: 'delivered' });
  expect(asked).toBe(1);
  expect(await deliver(url)).toMatchObject({ kind: 'failed', reason: 'address' });
  expect([outer.hits.length, inner.hits.length]).toEqual([1, 0]);
});

test('a URL whose address is not allowed any more is not asked', async () => {
  const { url, hits } = await receiver((_, response) => response.end());
  expect(await delivererOf({ allow: '10.0.0.0/8' }).deliver(url)).toMatchObject({ kind: 'failed', reason: 'address' });
  expect(hits).toEqual([]);
});

test('names that lead nowhere, or nobody tells where', async () => {
  const nowhere = Object.assign(new Error('queryA ENOTFOUND x'), { code: 'ENOTFOUND' });
  const unknown = delivererOf({ resolve: () => Promise.reject(nowhere) });
  expect(await unknown.deliver('http://x.example/')).toEqual({
    kind: 'failed',
    reason: 'name',
    error: 'its name leads nowhere: ENOTFOUND',
  });
  const silent = delivererOf({ resolve: () => new Promise(() => {}) });
  const outcome = silent.deliver('http://x.example/');
  await silent.clock.advance(5000);
  expect(await outcome).toEqual({ kind: 'failed', reason: 'timeout', error: 'no connection within 5000 ms' });
});

test('localhost is asked at both its addresses, without DNS', async () => {
  const { port } = await receiver((_, response) => response.end());
  expect(await delivererOf({ allow: '127.0.0.0/8,::1' }).deliver(`http://localhost:${port}/`)).toEqual({ kind: 'delivered' });
});

test('without a secret nothing is sent', async () => {
  const { url, hits } = await receiver((_, response) => response.end());
  const { deliverer } = delivererOf();
  const outcome = await deliverer.deliver({ ...jobFor(url), tenant: 'other' }, new AbortController().signal);
  expect(outcome).toMatchObject({ kind: 'failed', reason: 'secret' });
  expect(hits).toEqual([]);
});

test('a stop ends an attempt with its reason', async () => {
  const { url, hits } = await receiver(() => {});
  const { deliverer, clock, events } = delivererOf();
  const stop = new AbortController();
  const outcome = deliverer.deliver(jobFor(url), stop.signal);
  await expect.poll(() => hits).toHaveLength(1);
  stop.abort(new Error('stopped'));
  await expect(outcome).rejects.toThrow('stopped');
  expect(events).toEqual([]);
  expect(clock.pendingCount).toBe(0);
  await expect(deliverer.deliver(jobFor(url), stop.signal)).rejects.toThrow('stopped');
});

test('a receiver that hangs delays nobody else', async () => {
  const hanging = await receiver(() => {});
  const good = await receiver((_, response) => response.end());
  const { deliverer } = delivererOf();
  const outbox = new Outbox<{ eventId: string; tenant: string; url: string }>({
    send: async ({ url }, signal) => void (await deliverer.deliver(jobFor(url), signal)),
    onFailed: () => {},
    maxCount: 8,
    maxPerReceiverCount: 2,
  });
  cleanups.push(() => outbox.close());
  for (let n = 0; n < 100; n++) outbox.take({ eventId: `hanging-${n}`, tenant: 'acme', url: `${hanging.url}${n}` });
  for (let n = 0; n < 20; n++) outbox.take({ eventId: `good-${n}`, tenant: 'acme', url: `${good.url}${n}` });
  await expect.poll(() => good.hits).toHaveLength(20);
  await expect.poll(() => [outbox.sendingCount, outbox.waitingCount]).toEqual([2, 98]);
  await expect.poll(() => hanging.hits).toHaveLength(2);
});
