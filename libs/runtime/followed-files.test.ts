import { execFile } from 'node:child_process';
import { mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, expect, test } from 'vitest';
import { systemClock } from './clock.js';
import { FollowedFiles } from './followed-files.js';

const MAX_BYTES = 1000;
const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function follow() {
  const dir = await mkdtemp(path.join(tmpdir(), 'dmesh-followed-'));
  const file = path.join(dir, 'file');
  const taken: string[] = [];
  const rejected: string[] = [];
  const files = new FollowedFiles({
    paths: [file],
    clock: systemClock,
    take: ([content]) => {
      taken.push(String(content));
      return [];
    },
    onRejected: (faults) => rejected.push(...faults),
    maxBytes: MAX_BYTES,
    pollMs: 50,
  });
  cleanups.push(
    () => rm(dir, { recursive: true }),
    () => files.close(),
  );
  const put = async (make: (next: string) => Promise<unknown>) => {
    await make(`${file}.next`);
    await rename(`${file}.next`, file);
  };
  return { file, files, taken, rejected, put };
}

const pipe = (next: string) => promisify(execFile)('mkfifo', [next]);

test.each([
  ['a pipe', pipe, 'expected a regular file, got a pipe or a socket'],
  ['a device without an end', (next: string) => symlink('/dev/zero', next), 'expected a regular file, got a device'],
  ['a large file', (next: string) => writeFile(next, Buffer.alloc(MAX_BYTES + 1)), 'expected at most 1000 bytes, got 1001'],
  // It says that it is empty, and is not.
  ['a file that does not tell its size', (next: string) => symlink('/proc/self/smaps', next), 'expected at most 1000 bytes, got more'],
])('%s is refused, what was good holds, and a good file is noticed', async (_, make, fault) => {
  const { file, files, taken, rejected, put } = await follow();
  await put((next) => writeFile(next, 'first'));
  await files.start();
  await put(make);
  await expect.poll(() => rejected).toContain(`${file}: ${fault}`);
  await put((next) => writeFile(next, 'second'));
  await expect.poll(() => taken).toEqual(['first', 'second']);
});

test('a start with a pipe fails instead of waiting for who writes', async () => {
  const { file, files, put } = await follow();
  await put(pipe);
  await expect(files.start()).rejects.toMatchObject({
    name: 'ConfigError',
    faults: [`${file}: expected a regular file, got a pipe or a socket`],
  });
});
