import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { LocalMesh } from '#local-mesh';
import type { Context } from './command.js';
import { keepAlive } from './mesh-session.js';
import { noPaint } from './terminal.js';

const ROUTER = `
  process.on('SIGTERM', () => process.exit(0));
  console.log(JSON.stringify({ msg: 'ready', grpc: '127.0.0.1:1', http: '127.0.0.1:2' }));
  setInterval(() => {}, 1000);
`;

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

test('what dies is started again, NATS on its port, until the session ends', async () => {
  const dir = await mkdtemp(path.join(tmpdir(), 'dmesh-test-'));
  cleanups.push(() => rm(dir, { recursive: true, force: true }));
  const router = path.join(dir, 'router.cjs');
  await writeFile(router, ROUTER);
  const mesh = await LocalMesh.start({ nodes: 0, programs: { router, node: router } });
  cleanups.push(() => mesh.stop());
  const told: string[] = [];
  const waits: number[] = [];
  const ended = new AbortController();
  cleanups.push(() => ended.abort());
  const terminal: Context['terminal'] = {
    out: () => {},
    err: (text) => told.push(text),
    interactive: false,
    columnCount: 80,
    paint: noPaint,
  };
  keepAlive(mesh, { env: {}, terminal, signal: ended.signal, hurry: ended.signal }, async (ms) => void waits.push(ms));

  const first = mesh.nats;
  if (!first) throw new Error('expected a NATS');
  process.kill(first.pid, 'SIGKILL');
  await expect.poll(() => mesh.nats?.pid, { timeout: 10_000 }).not.toBe(first.pid);
  expect(mesh.nats?.port).toBe(first.port);
  mesh.routers[0]?.kill('SIGKILL');
  await expect.poll(() => mesh.routers[1]?.grpc, { timeout: 10_000 }).toBe('127.0.0.1:1');

  const second = mesh.nats;
  if (!second) throw new Error('expected a NATS');
  process.kill(second.pid, 'SIGKILL');
  await expect.poll(() => mesh.nats?.pid, { timeout: 10_000 }).not.toBe(second.pid);
  expect(told).toEqual([
    'nats ended (SIGKILL); it starts again in 1 s\n',
    'router-1 ended (SIGKILL); it starts again in 1 s\n',
    'nats ended (SIGKILL); it starts again in 2 s\n',
  ]);
  expect(waits).toEqual([1000, 1000, 2000]);

  ended.abort();
  await mesh.stop();
  expect(told).toHaveLength(3);
});
