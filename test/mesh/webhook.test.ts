/** Webhooks over whole processes: signed, told past a receiver that hangs, and not lost with the process that was about to send them. */
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import type http from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Webhook as Signer } from 'standardwebhooks';
import { afterEach, expect, test } from 'vitest';
import { jobs } from '#contracts';
import { Code, Reason } from '#core';
import { type DevCa, makeDevCa } from '../support/dev-ca.js';
import { useShared } from '../support/shared.js';
import { TestMesh } from '../support/test-mesh.js';

const secret = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
const request = { prompt: 'a red circle', seed: 7 };
const { WebhookState } = jobs;

let dir = '';
let ca: DevCa;
let mesh: TestMesh;
const servers: https.Server[] = [];

useShared(
  async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'dmesh-webhook-'));
    ca = await makeDevCa();
    const file = path.join(dir, 'webhooks.json');
    await writeFile(file, JSON.stringify({ default: { secret } }));
    const env = {
      DMESH_JOBS_WEBHOOKS_FILE: file,
      DMESH_JOBS_WEBHOOK_ALLOW: '127.0.0.1',
      DMESH_JOBS_WEBHOOK_RETRY_DELAY: '500ms',
      NODE_EXTRA_CA_CERTS: ca.file('mesh-ca.pem'),
    };
    mesh = await TestMesh.start({ nodes: 1, jobsCount: 2, env: { jobs: env } });
  },
  async () => {
    await mesh?.stop();
    await ca?.drop();
    await rm(dir, { recursive: true, force: true });
  },
);
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.close();
    server.closeAllConnections();
  }
});

interface Message {
  readonly id: string;
  readonly type: string;
  readonly data: { readonly job_id: string; readonly images?: readonly { readonly sha256: string }[] };
}

/** Over TLS; takes only what is signed with our secret. */
async function receiver(answer: (response: http.ServerResponse) => void) {
  const messages: Message[] = [];
  const [cert, key] = await Promise.all(['router.pem', 'router.key'].map((name) => readFile(ca.file(name))));
  const server = https.createServer({ cert, key }, async (incoming: http.IncomingMessage, response) => {
    let body = '';
    for await (const chunk of incoming) body += chunk;
    const headers = incoming.headers as Record<string, string>;
    const message = { id: headers['webhook-id'] ?? '', ...(new Signer(secret).verify(body, headers) as Omit<Message, 'id'>) };
    messages.push(message);
    answer(response);
  });
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `https://127.0.0.1:${(server.address() as AddressInfo).port}/hook`, messages };
}

const webhookOf = async (jobId: string) => (await mesh.client.jobs.get(jobId)).webhook;

test('a job tells its receiver how it ended, though another hangs', async () => {
  const hanging = await receiver(() => {});
  const good = await receiver((response) => response.writeHead(204).end());
  const { jobs: client } = mesh.client;
  for (let n = 0; n < 8; n++) await client.submit(request, { jobId: `hangs-${n}`, webhookUrl: hanging.url });
  await expect.poll(() => hanging.messages.length, { timeout: 20_000 }).toBeGreaterThan(0);
  await client.submit(request, { jobId: 'told', webhookUrl: good.url });
  await expect.poll(() => good.messages, { timeout: 20_000 }).toHaveLength(1);
  const job = await client.get('told');
  const images = [{ sha256: job.result?.images[0]?.sha256, mime_type: 'image/png', seed: '7' }];
  expect(good.messages).toMatchObject([{ type: 'job.succeeded', data: { job_id: 'told', state: 'succeeded', images } }]);
  await expect.poll(() => webhookOf('told')).toMatchObject({ state: WebhookState.DELIVERED, attempts: 1, lastError: '' });
});

test('one that redirects is not followed, one that answers 1 GB is cut off', async () => {
  const elsewhere = await receiver((response) => response.end());
  const redirecting = await receiver((response) => response.writeHead(307, { location: elsewhere.url }).end());
  let sentBytes = 0;
  const flooding = await receiver((response) => {
    const chunks = function* () {
      for (; sentBytes < 2 ** 30; sentBytes += 65_536) yield Buffer.alloc(65_536);
    };
    pipeline(Readable.from(chunks()), response).catch(() => {}); // cut off
  });
  const { jobs: client } = mesh.client;
  await client.submit(request, { jobId: 'redirected', webhookUrl: redirecting.url });
  await client.submit(request, { jobId: 'flooded', webhookUrl: flooding.url });
  const lastError = 'answered 307; redirects are not followed';
  await expect.poll(() => webhookOf('redirected'), { timeout: 20_000 }).toMatchObject({ state: WebhookState.PENDING, lastError });
  await expect.poll(() => webhookOf('flooded'), { timeout: 20_000 }).toMatchObject({ state: WebhookState.DELIVERED, attempts: 1 });
  expect(sentBytes).toBeLessThan(64 * 2 ** 20); // what the buffers of both sides took
  expect(elsewhere.messages).toEqual([]);
});

test('what killed replicas had to tell is told after a restart, under the same id', async () => {
  let taking = false;
  const { url, messages } = await receiver((response) => response.writeHead(taking ? 200 : 503).end());
  await mesh.client.jobs.submit(request, { jobId: 'retold', webhookUrl: url });
  await expect.poll(() => messages.length, { timeout: 20_000 }).toBeGreaterThan(0);
  await expect.poll(() => webhookOf('retold')).toMatchObject({ state: WebhookState.PENDING, lastError: 'answered 503' });
  const [first] = mesh.local.jobs;
  for (const replica of mesh.local.jobs) {
    replica.kill('SIGKILL');
    await replica.exited;
  }
  taking = true;
  const before = messages.length;
  if (first) await mesh.local.restart(first);
  await expect.poll(() => messages.length, { timeout: 20_000 }).toBeGreaterThan(before);
  await expect.poll(() => webhookOf('retold'), { timeout: 20_000 }).toMatchObject({ state: WebhookState.DELIVERED });
  expect(new Set(messages.map(({ id }) => id)).size).toBe(1);
});

test('a cancelled job is told as such; a receiver that may not be asked is refused at once', async () => {
  const { url, messages } = await receiver((response) => response.end());
  const { jobs: client } = mesh.client;
  await client.submit({ ...request, prompt: '[step=1s]' }, { jobId: 'stopped', webhookUrl: url });
  await client.cancel('stopped');
  await expect.poll(() => messages, { timeout: 20_000 }).toMatchObject([{ type: 'job.cancelled', data: { job_id: 'stopped' } }]);
  const refused = client.submit(request, { jobId: 'refused', webhookUrl: 'http://169.254.169.254/latest/meta-data' });
  await expect(refused).rejects.toMatchObject({ code: Code.INVALID_ARGUMENT, reason: Reason.WEBHOOK_REFUSED });
  await expect(client.get('refused')).rejects.toMatchObject({ code: Code.NOT_FOUND });
});
