/** Tokens, limits and usage over a real mesh with two routers. */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { DEFAULT_LIMITS, formatTokenFile, hashSecret, makeToken, type Token } from '#access';
import { connectMesh, type MeshError } from '#client';
import { generation } from '#contracts';
import { Code, Reason } from '#core';
import { Channel } from '#grpc';
import type { Child } from '#local-mesh';
import { packageRoot, systemClock } from '#runtime';
import { useShared } from '../support/shared.js';
import { only, TestMesh } from '../support/test-mesh.js';

const Pictures = generation.ImageGenerationServiceService;
const SIZE = { width: 64, height: 64, steps: 1 };
const CLI = path.join(packageRoot, 'dist/services/cli/main.js');

async function issue(fields: Partial<Token>): Promise<{ text: string; token: Token }> {
  const made = makeToken();
  const defaults = { tenant: 'acme', ...DEFAULT_LIMITS, maxPriority: 'normal', models: undefined, admin: false, actsFor: false } as const;
  return { text: made.text, token: { id: made.id, hash: await hashSecret(made.secret), ...defaults, ...fields } };
}

let dir = '';
let tokenFile = '';
let mesh: TestMesh;
let operator: Awaited<ReturnType<typeof issue>>;
let acme: Awaited<ReturnType<typeof issue>>;
useShared(
  async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'dmesh-access-'));
    tokenFile = path.join(dir, 'tokens.json');
    operator = await issue({ tenant: 'operators', admin: true, maxPriority: 'high', ratePerSec: 1000, burst: 1000 });
    acme = await issue({ ratePerSec: 10, burst: 10 });
    await writeFile(tokenFile, formatTokenFile([operator.token, acme.token]));
    const router = { DMESH_ROUTER_TOKEN_FILE: tokenFile, DMESH_ROUTER_AUDIT_LOG: path.join(dir, 'audit.jsonl') };
    const node = { SCRIPT_STEP: '1ms' };
    mesh = await TestMesh.start({ nodes: 2, routerCount: 2, token: operator.text, env: { router, node } });
  },
  async () => {
    await mesh?.stop();
    await rm(dir, { recursive: true, force: true });
  },
);

/** What an open call to a router brings: its reason, or OK. No retries. */
function caller(address: string, token?: string) {
  const channel = new Channel(address, { clock: systemClock });
  const metadata: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const draw = () =>
    channel.unary(Pictures.generate, generation.GenerateRequest.fromPartial({ prompt: 'x', ...SIZE }), { metadata }).then(
      () => 'OK',
      (error: MeshError) => error.reason,
    );
  return { draw, close: () => channel.close() };
}

test('strangers stay out, tenants draw, operators pull the levers, also from the command line', async () => {
  const { address } = mesh.local;
  const stranger = connectMesh({ address });
  await expect(stranger.generate({ prompt: 'x', ...SIZE })).rejects.toMatchObject({
    code: Code.UNAUTHENTICATED,
    reason: Reason.UNAUTHENTICATED,
  });
  await expect(stranger.listNodes()).rejects.toMatchObject({ reason: Reason.UNAUTHENTICATED });
  stranger.close();
  const tenant = connectMesh({ address, token: acme.text });
  await tenant.generate({ prompt: 'x', ...SIZE });
  await expect(tenant.generate({ prompt: 'x', ...SIZE, priority: 'high' })).rejects.toMatchObject({ reason: Reason.FORBIDDEN });
  await expect(tenant.drain('node-1')).rejects.toMatchObject({ code: Code.PERMISSION_DENIED });
  tenant.close();
  const env = { ...process.env, DMESH_ROUTER: address, DMESH_TOKEN: operator.text };
  const { stdout } = await promisify(execFile)(process.execPath, [CLI, 'nodes', '--json'], { env });
  expect(JSON.parse(stdout)).toHaveLength(2);
});

test('a limit holds over two routers within 20 %, even and skewed', async () => {
  for (const [first, second] of [
    [4, 4],
    [8, 1],
  ]) {
    const tenant = await issue({ tenant: `pressing-${first}-${second}`, ratePerSec: 20, burst: 5 });
    await change([operator.token, acme.token, tenant.token]);
    const callers = mesh.local.routers.flatMap((router, index) =>
      Array.from({ length: (index === 0 ? first : second) ?? 0 }, () => caller(router.grpc, tenant.text)),
    );
    // The bursts of both routers are used up first: what is measured is the steady flow.
    // A rate is a matter of real time, so this test alone waits for it.
    let drawnCount = 0;
    let counting = false;
    let pressing = true;
    const done = callers.map(async ({ draw }) => {
      while (pressing) {
        if ((await draw()) === 'OK') drawnCount += counting ? 1 : 0;
        else await systemClock.sleep(5);
      }
    });
    await systemClock.sleep(1000);
    counting = true;
    const startedAt = systemClock.now();
    await systemClock.sleep(4000);
    pressing = false;
    const perSec = drawnCount / ((systemClock.now() - startedAt) / 1000);
    await Promise.all(done);
    for (const { close } of callers) close();
    expect(perSec).toBeGreaterThan(0.8 * 20);
    expect(perSec).toBeLessThan(1.2 * 20);
  }
});

test('every router follows the file; a broken one changes nothing and is reported', async () => {
  const fresh = await issue({ tenant: 'fresh' });
  const callers = mesh.local.routers.map((router) => caller(router.grpc, fresh.text));
  const refused = async (router: Child) => (await mesh.figures(router)).sum('dmesh_router_token_loads_total', { result: 'rejected' });
  for (const { draw } of callers) expect(await draw()).toBe(Reason.UNAUTHENTICATED);
  await change([operator.token, acme.token, fresh.token]);
  for (const { draw } of callers) await expect.poll(draw).toBe('OK');
  const refusedBefore = await Promise.all(mesh.local.routers.map(refused));
  await writeFile(tokenFile, '[{"tenant": ');
  for (const [index, router] of mesh.local.routers.entries()) {
    await expect.poll(() => refused(router)).toBeGreaterThan(refusedBefore[index] ?? 0);
    await expect.poll(() => router.lines.some((line) => line.includes('token file refused'))).toBe(true);
  }
  for (const { draw } of callers) expect(await draw()).toBe('OK');
  await change([operator.token, acme.token]);
  for (const { draw, close } of callers) {
    await expect.poll(draw).toBe(Reason.UNAUTHENTICATED);
    close();
  }
});

test('what tenants used is in the metrics and in the audit log', async () => {
  const tenant = await issue({ tenant: 'counted' });
  await change([operator.token, acme.token, tenant.token]);
  const client = connectMesh({ address: mesh.local.address, token: tenant.text });
  const ready = () =>
    client.listModels().then(
      () => true,
      () => false,
    );
  await expect.poll(ready).toBe(true);
  await client.generate({ prompt: 'x', ...SIZE, requestId: 'two-pictures', imageCount: 2 });
  client.close();
  const router = only(mesh.local.routers[0]);
  await expect.poll(async () => (await mesh.figures(router)).sum('dmesh_router_tenant_images_total', { tenant: 'counted' })).toBe(2);
  const figures = await mesh.figures(router);
  expect(figures.sum('dmesh_router_tenant_requests_total', { tenant: 'counted', code: 'OK' })).toBe(1);
  expect(figures.sum('dmesh_router_tenant_gpu_seconds_total', { tenant: 'counted' })).toBeGreaterThan(0);
  const line = async () =>
    (await readFile(path.join(dir, 'audit.jsonl'), 'utf8')).split('\n').find((text) => text.includes('two-pictures'));
  await expect.poll(line).toBeDefined();
  expect(JSON.parse((await line()) ?? '')).toMatchObject({
    tenant: 'counted',
    code: 'OK',
    images: 2,
    node: expect.stringMatching(/^node-/),
  });
});

test('a router with an unusable token file or audit log, or open to more than its machine, does not start', async () => {
  const main = path.join(packageRoot, 'dist/services/router/main.js');
  const start = (env: Record<string, string>) =>
    promisify(execFile)(process.execPath, [main], { env: { ...process.env, ...env }, timeout: 20_000 }).then(
      () => ({ code: 0, out: '' }),
      (error: { code: number; stdout: string; stderr: string }) => ({ code: error.code, out: error.stdout + error.stderr }),
    );
  const free = { DMESH_ROUTER_LISTEN: '127.0.0.1:0', DMESH_ROUTER_HTTP_LISTEN: '127.0.0.1:0', NATS_URL: mesh.local.natsUrl };
  const broken = path.join(dir, 'broken.json');
  await writeFile(broken, '{}');
  const refused = await start({ ...free, DMESH_ROUTER_TOKEN_FILE: broken });
  expect(refused).toMatchObject({ code: 64, out: expect.stringContaining('expected a list of tokens') });
  const lost = await start({ ...free, DMESH_ROUTER_AUDIT_LOG: path.join(dir, 'no/such/folder.jsonl') });
  expect(lost).toMatchObject({ code: 64, out: expect.stringContaining('DMESH_ROUTER_AUDIT_LOG: expected a file') });
  const open = await start({ ...free, DMESH_ROUTER_LISTEN: '0.0.0.0:0' });
  expect(open).toMatchObject({ code: 64, out: expect.stringContaining('DMESH_ROUTER_OPEN') });
});

/** Writes the file; whoever needs it to be read waits for what it changes. */
async function change(tokens: readonly Token[]): Promise<void> {
  await writeFile(tokenFile, formatTokenFile(tokens));
}
