import { link, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';
import { removeDeadSockets } from './dead-sockets.js';

const HOUR_MS = 3_600_000;

test('removeDeadSockets removes old sockets nobody answers at, and nothing else', async () => {
  const dir = await mkdtemp(path.join(tmpdir(), 'dmesh-s-'));
  const listen = (name: string) => {
    const server = net.createServer();
    return new Promise<net.Server>((resolve) => server.listen(path.join(dir, name), () => resolve(server)));
  };
  const live = await listen('engine-1-a-1.sock');
  const dying = await listen('dying');
  await link(path.join(dir, 'dying'), path.join(dir, 'engine-2-a-1.sock')); // outlives its server, as after a kill
  await new Promise((resolve) => dying.close(resolve));
  await writeFile(path.join(dir, 'gpu.lock'), '');

  await removeDeadSockets(dir, Date.now());
  expect((await readdir(dir)).sort()).toEqual(['engine-1-a-1.sock', 'engine-2-a-1.sock', 'gpu.lock']);
  await removeDeadSockets(dir, Date.now() + HOUR_MS);
  expect((await readdir(dir)).sort()).toEqual(['engine-1-a-1.sock', 'gpu.lock']);
  await removeDeadSockets(path.join(dir, 'no-such-folder'), Date.now());

  await new Promise((resolve) => live.close(resolve));
  await rm(dir, { recursive: true });
});
