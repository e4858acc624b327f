import { connect } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { AdminHttp, type Readiness } from './admin-http.js';
import { createMetrics } from './metrics.js';

const started: AdminHttp[] = [];
afterEach(async () => {
  for (const http of started.splice(0)) await http.close();
});

async function start(
  options: { readiness?: () => Readiness; render?: () => Promise<string>; listen?: string; clientPatienceMs?: number } = {},
) {
  const metrics = createMetrics({ service: 's' });
  const http = new AdminHttp({
    metrics: { contentType: metrics.contentType, render: options.render ?? metrics.render },
    readiness: options.readiness ?? (() => ({ ready: true })),
    ...(options.listen === undefined ? {} : { listen: options.listen }),
    ...(options.clientPatienceMs === undefined ? {} : { clientPatienceMs: options.clientPatienceMs }),
  });
  started.push(http);
  await http.start();
  return { http, url: `http://${http.address}` };
}

test('it listens on the loopback address and a free port unless told', async () => {
  const { http } = await start();
  expect(http.address).toMatch(/^127\.0\.0\.1:[1-9]\d*$/);
});

test('/metrics is the exposition format', async () => {
  const { url } = await start({ render: async () => 'dmesh_x_total 1\n' });
  const response = await fetch(`${url}/metrics?name=x`);
  expect(response.headers.get('content-type')).toContain('text/plain; version=0.0.4');
  expect(await response.text()).toBe('dmesh_x_total 1\n');
});

test('/metrics says 500 when a collector throws, and the server lives on', async () => {
  const { url } = await start({ render: () => Promise.reject(new Error('broken gauge')) });
  const response = await fetch(`${url}/metrics`);
  expect(response.status).toBe(500);
  expect(await response.text()).toContain('broken gauge');
  expect((await fetch(`${url}/healthz`)).status).toBe(200);
});

test('/readyz follows readiness and says why not; /healthz stays 200', async () => {
  let readiness: Readiness = { ready: false, reason: 'no NATS yet' };
  const { url } = await start({ readiness: () => readiness });
  const notReady = await fetch(`${url}/readyz`);
  expect(notReady.status).toBe(503);
  expect(await notReady.json()).toEqual({ ready: false, reason: 'no NATS yet' });
  expect((await fetch(`${url}/healthz`)).status).toBe(200);
  readiness = { ready: true };
  expect((await fetch(`${url}/readyz`)).status).toBe(200);
});

test.each([
  ['GET', '/', 404],
  ['GET', '/metrics/x', 404],
  ['POST', '/metrics', 405],
  ['HEAD', '/healthz', 200],
])('%s %s is %i', async (method, path, status) => {
  const { url } = await start();
  expect((await fetch(url + path, { method })).status).toBe(status);
});

test('a client that never finishes its request is cut', async () => {
  const { http } = await start({ clientPatienceMs: 100 });
  const [host = '', port = ''] = http.address.split(':');
  const socket = connect(Number(port), host);
  await new Promise<void>((resolve, reject) => {
    socket.on('connect', () => socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\n'));
    socket.on('error', reject);
    socket.on('close', () => resolve());
    socket.resume();
  });
});

test('close ends open connections, and a second close does nothing', async () => {
  const { http } = await start();
  const [host = '', port = ''] = http.address.split(':');
  const socket = connect(Number(port), host);
  await new Promise((resolve) => socket.on('connect', resolve));
  const closed = new Promise((resolve) => socket.on('close', resolve));
  await http.close();
  await closed;
  await http.close();
});

test.each(['', 'localhost', '127.0.0.1:x', '127.0.0.1:99999'])('listen address %j is refused with a sentence', async (listen) => {
  const http = new AdminHttp({ listen, metrics: createMetrics({ service: 's' }), readiness: () => ({ ready: true }) });
  await expect(http.start()).rejects.toThrow('expected host:port such as');
});

test('a port that is taken fails the start', async () => {
  const { http } = await start();
  const second = new AdminHttp({ listen: http.address, metrics: createMetrics({ service: 's' }), readiness: () => ({ ready: true }) });
  await expect(second.start()).rejects.toMatchObject({ code: 'EADDRINUSE' });
});
