import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { Line } from './child.js';
import { LocalMesh, type LocalMeshOptions } from './local-mesh.js';

// A process with the manners of a service (says when it is ready, drains on SIGTERM) and nothing else.
const WELL_BEHAVED = `
  const { env } = process;
  process.on('SIGTERM', () => { console.log('left'); process.exit(0); });
  const listen = env.DMESH_ROUTER_LISTEN ?? env.DMESH_NODE_LISTEN ?? env.DMESH_JOBS_LISTEN;
  const grpc = listen === '127.0.0.1:0' ? '127.0.0.1:' + process.pid : listen;
  console.log(JSON.stringify({ msg: 'ready', grpc, http: '127.0.0.1:1', stateDir: env.DMESH_NODE_STATE_DIR, storeDir: env.DMESH_JOBS_STORE_DIR, nats: env.NATS_URL }));
  setInterval(() => {}, 1000);
`;
const DEAF = WELL_BEHAVED.replace("console.log('left'); process.exit(0);", '');
const BROKEN = "console.error('DMESH_NODE_ZONE: expected text'); process.exit(64);";

let dir = '';
const program = (name: string) => path.join(dir, `${name}.cjs`);
beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'dmesh-test-'));
  for (const [name, source] of Object.entries({ good: WELL_BEHAVED, deaf: DEAF, broken: BROKEN })) await writeFile(program(name), source);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const meshes: LocalMesh[] = [];
afterEach(async () => {
  for (const mesh of meshes.splice(0)) await mesh.stop();
});

async function start(options: Partial<LocalMeshOptions> = {}) {
  const lines: Line[] = [];
  const programs = { router: program('good'), node: program('good'), jobs: program('good') };
  const mesh = await LocalMesh.start({ nodes: 0, programs, onLine: (line) => lines.push(line), ...options });
  meshes.push(mesh);
  return { mesh, lines };
}

test('start() brings up NATS and routers and knows their addresses', async () => {
  const { mesh } = await start({ routerCount: 2 });
  expect(mesh.natsUrl).toMatch(/^nats:\/\/127\.0\.0\.1:\d+$/);
  expect(mesh.routers.map((router) => router.id)).toEqual(['router-1', 'router-2']);
  expect(mesh.address).toBe(`127.0.0.1:${mesh.routers[0]?.pid}`);
  expect(mesh.routers[0]?.lines[0]).toContain(mesh.natsUrl);
});

test('a given NATS is used and none is started', async () => {
  const { mesh } = await start({ natsUrl: 'nats://127.0.0.1:1' });
  expect(mesh.nats).toBeUndefined();
  expect(mesh.routers[0]?.lines[0]).toContain('nats://127.0.0.1:1');
});

test('stop() ends routers before nodes, and removes what the mesh kept on disk', async () => {
  const { mesh, lines } = await start({ natsUrl: 'nats://127.0.0.1:1' });
  const node = await mesh.addNode();
  const { stateDir } = JSON.parse(node.lines[0] ?? '');
  expect(existsSync(stateDir)).toBe(true);
  await mesh.stop();
  expect(lines.filter((line) => line.text === 'left').map((line) => line.process)).toEqual(['router-1', 'node-1']);
  expect([node.running, mesh.routers[0]?.running, existsSync(stateDir)]).toEqual([false, false, false]);
});

test('jobs replicas stop first; with a folder to keep, their store and that of NATS outlive the mesh', async () => {
  const keepDir = await mkdtemp(path.join(tmpdir(), 'dmesh-test-'));
  try {
    const { mesh, lines } = await start({ jobsCount: 2, keepDir });
    expect(mesh.jobs.map(({ id }) => id).sort()).toEqual(['jobs-1', 'jobs-2']);
    expect(JSON.parse(mesh.jobs[0]?.lines[0] ?? '').storeDir).toBe(path.join(keepDir, 'jobs'));
    await expect(start({ keepDir })).rejects.toThrow(`${keepDir} is in use by another mesh (dmesh, process ${process.pid})`);
    const lockText = await readFile(path.join(keepDir, 'mesh.lock'), 'utf8');
    expect(
      JSON.parse(lockText)
        .map(({ id }: { id: string }) => id)
        .sort(),
    ).toEqual(['dmesh', 'jobs-1', 'jobs-2', 'nats']);
    const [first] = mesh.jobs;
    first?.kill('SIGKILL');
    await first?.exited;
    if (first) expect((await mesh.restart(first)).grpc).toBe(first.grpc);
    await mesh.stop();
    expect(lines.filter((line) => line.text === 'left').map((line) => line.process)[2]).toBe('router-1');
    expect(existsSync(path.join(keepDir, 'nats', 'jetstream'))).toBe(true);
    expect(existsSync(path.join(keepDir, 'mesh.lock'))).toBe(false);
  } finally {
    await rm(keepDir, { recursive: true, force: true });
  }
});

test('beside a NATS that is not its own, a jobs replica keeps pictures where it would in production', async () => {
  const { mesh } = await start({ natsUrl: 'nats://127.0.0.1:1', jobsCount: 1 });
  expect(JSON.parse(mesh.jobs[0]?.lines[0] ?? '').storeDir).toBeUndefined();
});

test('a child that does not hear SIGTERM is killed when the grace is over', async () => {
  const { mesh } = await start({
    natsUrl: 'nats://127.0.0.1:1',
    graceMs: 200,
    programs: { router: program('deaf'), node: program('good') },
  });
  await mesh.stop();
  expect(await mesh.routers[0]?.exited).toEqual({ code: null, signal: 'SIGKILL' });
});

test('restart() brings a killed child back on the same address', async () => {
  const { mesh } = await start({ natsUrl: 'nats://127.0.0.1:1' });
  const node = await mesh.addNode({ id: 'n' });
  node.kill('SIGKILL');
  expect(await node.exited).toEqual({ code: null, signal: 'SIGKILL' });
  const again = await mesh.restart(node);
  expect([again.id, again.grpc, again.pid === node.pid]).toEqual(['n', node.grpc, false]);
});

test('restartNats() comes back on the same port', async () => {
  const { mesh } = await start();
  const port = mesh.nats?.port;
  await mesh.nats?.kill();
  expect((await mesh.restartNats()).port).toBe(port);
});

test('start() quotes the last words of a process that fails', async () => {
  const lines: Line[] = [];
  const started = LocalMesh.start({
    nodes: 1,
    natsUrl: 'nats://127.0.0.1:1',
    programs: { router: program('good'), node: program('broken') },
    onLine: (line) => lines.push(line),
  });
  await expect(started).rejects.toThrow(/node-1 to be ready, it ended with exit code 64.*DMESH_NODE_ZONE: expected text/s);
  expect(lines).toContainEqual({ process: 'node-1', text: 'DMESH_NODE_ZONE: expected text' });
});
