/** A load balancer hears the same from /readyz and from grpc.health.v1: whether this process takes work now. */
import { afterEach, expect, test } from 'vitest';
import { health } from '#contracts';
import { Channel } from '#grpc';
import type { Child } from '#local-mesh';
import { systemClock } from '#runtime';
import { useMesh } from '../support/test-mesh.js';

const mesh = useMesh({ nodes: 1 });
const { SERVING, NOT_SERVING } = health.HealthCheckResponse_ServingStatus;
const READY = { http: 200, grpc: SERVING };
const NOT_READY = { http: 503, grpc: NOT_SERVING };

const channels: Channel[] = [];
afterEach(() => {
  for (const channel of channels.splice(0)) channel.close();
});

/** What both say. */
async function said(child: Child) {
  const channel = new Channel(child.grpc, { clock: systemClock });
  channels.push(channel);
  const { response } = await channel.unary(health.HealthService.check, { service: 'ready' });
  return { http: (await fetch(`http://${child.http}/readyz`)).status, grpc: response.status };
}

test('router and node are ready, and not while the only node is drained', async () => {
  const { client, router } = mesh();
  const node = mesh().node('node-1');
  await expect.poll(() => said(router)).toEqual(READY);
  await expect.poll(() => said(node)).toEqual(READY);
  await client.drain('node-1');
  await expect.poll(() => said(node)).toEqual(NOT_READY);
  await expect.poll(() => said(router)).toEqual(NOT_READY);
  await client.resume('node-1');
  await expect.poll(() => said(node)).toEqual(READY);
  await expect.poll(() => said(router)).toEqual(READY);
});

test('a router without nodes lives and is not ready', async () => {
  const lonely = await mesh().local.addRouter({ id: 'lonely', env: { NATS_URL: 'nats://127.0.0.1:1' } });
  expect(await said(lonely)).toEqual(NOT_READY);
  expect((await fetch(`http://${lonely.http}/healthz`)).status).toBe(200);
  await lonely.stop(5000);
});
