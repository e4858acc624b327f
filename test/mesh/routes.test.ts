/** Routes over a real mesh: two routers, nodes of two revisions, and what is left of it without JetStream or NATS. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, expect, test } from 'vitest';
import { Code, Reason } from '#core';
import { findNatsServer, LocalMesh, startNatsServer } from '#local-mesh';
import { packageRoot } from '#runtime';
import { SCRIPTED_MODEL } from '../engines/scriptable/index.js';
import { useShared } from '../support/shared.js';
import { only, TestMesh } from '../support/test-mesh.js';

const MODEL = SCRIPTED_MODEL.name;
const SIZE = { width: 64, height: 64, steps: 1 };
const CLI = path.join(packageRoot, 'dist/services/cli/main.js');
const FOLLOWED_WITHIN_MS = 1000;

let dir = '';
let mesh: TestMesh;
const cleanups: (() => Promise<void> | void)[] = [];

/** A model folder as far as the scriptable engine reads it. */
async function folderOf(revision: string): Promise<string> {
  const folder = path.join(dir, revision);
  await mkdir(folder);
  await writeFile(path.join(folder, 'mesh.json'), JSON.stringify({ ...SCRIPTED_MODEL, revision }));
  return folder;
}

useShared(
  async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'dmesh-routes-'));
    mesh = await TestMesh.start({ nodes: 1, routerCount: 2 });
    await mesh.local.addNode({ id: 'canary', env: { DMESH_NODE_MODEL_DIR: await folderOf('2026-11-2') } });
    for (const router of mesh.local.routers) await mesh.local.waitForNodes(2, { router });
  },
  async () => {
    await mesh?.stop();
    await rm(dir, { recursive: true, force: true });
  },
);
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const target = (weight: number, revision = '') => ({ model: MODEL, revision, weight });
const clients = () => mesh.local.routers.map((router) => mesh.connect(router.grpc));
const draw = async (requestId: string, client = mesh.client, model = 'public') =>
  (await client.generate({ prompt: 'x', model, requestId, ...SIZE })).used.revision;

async function change(routes: Parameters<TestMesh['client']['setRoutes']>[0]): Promise<void> {
  const { revision } = await mesh.client.getRoutes();
  await mesh.client.setRoutes(routes, { expectedRevision: revision });
}

test('every router follows a change within a second, draws alike, and the answer says what drew it', async () => {
  await change([{ name: 'public', targets: [target(50, '1'), target(50, '2026-11-2')] }]);
  const [first, second] = [only(clients()[0]), only(clients()[1])];
  await expect.poll(async () => (await second.getRoutes()).routes, { timeout: FOLLOWED_WITHIN_MS, interval: 20 }).toHaveLength(1);
  const ids = Array.from({ length: 24 }, (_, i) => `r${i}`);
  const drawn = await Promise.all(ids.map((id) => draw(id, first)));
  expect(await Promise.all(ids.map((id) => draw(id, second)))).toEqual(drawn);
  expect(new Set(drawn)).toEqual(new Set(['1', '2026-11-2']));
  expect(await second.listModels()).toMatchObject([{ name: 'public', leadsTo: [`${MODEL}@1`, `${MODEL}@2026-11-2`] }, { name: MODEL }]);
  const figures = await mesh.figures();
  expect(figures.sum('dmesh_router_routed_total')).toBe(24);
});

test('dmesh sets and shows routes, and top tells what went through', async () => {
  const env = { ...process.env, DMESH_ROUTER: mesh.local.address };
  const dmesh = (...args: string[]) => promisify(execFile)(process.execPath, [CLI, ...args], { env });
  const set = await dmesh('routes', 'set', `cli=${MODEL}@1:75,${MODEL}@2026-11-2:25`);
  expect(set.stdout).toMatch(new RegExp(`cli +75 % +${MODEL} +1\n +25 % +${MODEL} +2026-11-2\n`));
  await expect(dmesh('routes', 'set', `cli=${MODEL}@7`)).rejects.toMatchObject({
    code: 2,
    stderr: expect.stringContaining(`cli → ${MODEL}@7`),
  });
  expect((await dmesh('models')).stdout).toContain(`${MODEL}@1 ${MODEL}@2026-11-2`);
  await draw('for-top', mesh.client, 'cli');
  const top = JSON.parse((await dmesh('top', '--once', '--json')).stdout);
  expect(top.rates.answersPerSecond).toBeGreaterThan(0);
  expect(top.classes).toHaveLength(3);
  expect((await dmesh('top', '--once')).stdout).toMatch(/2 nodes, \d of 2 slots busy.*canary +alive +closed/s);
  await dmesh('routes', 'set', 'cli=');
});

test('of changes through both routers at once one wins, and the other is told', async () => {
  const { revision: expectedRevision } = await mesh.client.getRoutes();
  const wanted = [{ name: 'public', targets: [target(1)] }];
  const results = await Promise.allSettled(clients().map((client) => client.setRoutes(wanted, { expectedRevision })));
  expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
  expect(results.find(({ status }) => status === 'rejected')).toMatchObject({
    reason: { code: Code.ABORTED, reason: Reason.CHANGED_MEANWHILE },
  });
});

test('routes hold while NATS is away, outlive it, and a new router knows them at its first request', async () => {
  await change([{ name: 'public', targets: [target(1, '2026-11-2')] }]);
  await only(mesh.local.nats).kill();
  expect(await draw('without-nats')).toBe('2026-11-2');
  await mesh.local.restartNats();
  const late = await mesh.local.addRouter();
  expect(await draw('late', mesh.connect(late.grpc))).toBe('2026-11-2');
  await expect.poll(() => change([]).then(() => 'changed', String), { timeout: 15_000, interval: 200 }).toBe('changed');
  await expect(draw('gone')).rejects.toMatchObject({ reason: Reason.UNKNOWN_MODEL });
});

test('without JetStream a router serves, says once what is missing, and refuses to set routes', async () => {
  const binary = await findNatsServer({ env: process.env, cacheDir: path.join(packageRoot, '.cache'), log: () => {} });
  const nats = await startNatsServer({ path: binary.path });
  cleanups.push(() => nats.stop());
  const plain = await LocalMesh.start({ nodes: 0, natsUrl: nats.url });
  cleanups.push(() => plain.stop());
  const client = mesh.connect(plain.address);
  const set = () =>
    client.setRoutes([], { expectedRevision: 0n }).then(
      () => 'set',
      (error) => `${error.reason} ${error.message}`,
    );
  await expect.poll(set, { timeout: 8000, interval: 50 }).toMatch(/STORE_UNAVAILABLE .*--jetstream/);
  expect(await client.getRoutes()).toEqual({ routes: [], revision: 0n });
  const said = () => only(plain.routers[0]).lines.filter((line) => line.includes('nowhere to keep them'));
  await expect.poll(said).toHaveLength(1);
});
