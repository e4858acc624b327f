import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { lockFolder } from './folder-lock.js';

let dir = '';
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'dmesh-test-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

test('a folder has one mesh at a time; the second is told who has it', async () => {
  const keep = path.join(dir, 'new', 'keep');
  const tries = await Promise.allSettled([lockFolder(keep), lockFolder(keep), lockFolder(keep)]);
  const locks = tries.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
  expect(locks).toHaveLength(1);
  await expect(lockFolder(keep)).rejects.toThrow(`${keep} is in use by another mesh (dmesh, process ${process.pid})`);
  locks[0]?.release();
  (await lockFolder(keep)).release();
});

test('what a killed mesh has left running holds its folder for as long as it lives, and no longer', async () => {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' });
  const gone = once(child, 'exit');
  try {
    await once(child, 'spawn');
    (await lockFolder(dir)).shareWith([{ id: 'nats', pid: child.pid ?? 0 }]);
    // As it would read had the first of them been killed.
    const file = path.join(dir, 'mesh.lock');
    const [, ...left] = JSON.parse(await readFile(file, 'utf8'));
    await writeFile(file, JSON.stringify(left));
    await expect(lockFolder(dir)).rejects.toThrow(`(nats, process ${child.pid})`);
  } finally {
    child.kill('SIGKILL');
  }
  await gone;
  (await lockFolder(dir)).release();
});

test.each(['', 'no JSON', '{}', '[{"pid":0}]'])('a file that says %j is taken over', async (text) => {
  await writeFile(path.join(dir, 'mesh.lock'), text);
  (await lockFolder(dir)).release();
});
