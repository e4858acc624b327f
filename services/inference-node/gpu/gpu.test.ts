import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { systemClock } from '#runtime';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { LockHeld, lockGpu } from './lock.js';
import { GpuWatch, parseGpuReport } from './nvidia-smi.js';
import { makeStateDir } from './state-dir.js';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'dmesh-lock-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const lock = (nodeId: string, pid = process.pid) => lockGpu({ dir, name: 'gpu-GPU-1b2c', nodeId, pid, clock: systemClock });

/** The id of a process that has ended. */
async function deadPid(): Promise<number> {
  const child = spawn(process.execPath, ['-e', '']);
  await new Promise((resolve) => child.once('exit', resolve));
  return child.pid ?? 0;
}

test('lockGpu keeps a second node out and says who holds it', async () => {
  await lock('first');
  await expect(lock('second')).rejects.toThrow(`gpu-GPU-1b2c is owned by node first, process ${process.pid}`);
  await expect(lock('second')).rejects.toBeInstanceOf(LockHeld);
});

test('lockGpu is given back by its release, and only by its own', async () => {
  const release = await lock('first');
  await release();
  await lock('second');
  await lock('third').catch(() => {});
  expect(await readdir(dir)).toEqual(['gpu-GPU-1b2c.lock']);
});

test('the folder is made, its parents too, by many at once', async () => {
  const deep = path.join(dir, 'a', 'b', 'c');
  await Promise.all(Array.from({ length: 5 }, () => makeStateDir(deep, systemClock)));
  await makeStateDir(deep, systemClock);
  expect(await readdir(deep)).toEqual([]);
});

test.runIf(existsSync('/proc/self'))('a folder of no use is refused with the setting and the reason, never waited for', async () => {
  await writeFile(path.join(dir, 'file'), '');
  for (const [folder, reason] of [
    ['/proc/nope', 'ENOENT'],
    ['/proc/nope/deeper', 'ENOENT'],
    [path.join(dir, 'file'), 'EEXIST'],
    [path.join(dir, 'file', 'below'), 'ENOTDIR'],
  ] as const) {
    const clock = new ManualClock();
    await expect(makeStateDir(folder, clock)).rejects.toThrow(
      `DMESH_NODE_STATE_DIR: expected a folder that can be written, got ${folder}: ${reason}`,
    );
    expect(clock.pendingCount).toBe(0);
  }
});

test('lockGpu takes over from a process that is gone', async () => {
  await lock('dead', await deadPid());
  await expect(lock('second')).resolves.toBeDefined();
  await expect(lock('third')).rejects.toThrow('node second');
});

test('lockGpu is not fooled by a later process with the same id', async () => {
  const file = path.join(dir, 'gpu-GPU-1b2c.lock');
  await writeFile(file, JSON.stringify({ nodeId: 'dead', pid: process.pid, processStart: '1' }));
  await expect(lock('second')).resolves.toBeDefined();
});

test.each(['', 'garbage', '{}'])('lockGpu takes over a file that names nobody: %j', async (content) => {
  await writeFile(path.join(dir, 'gpu-GPU-1b2c.lock'), content);
  await expect(lock('second')).resolves.toBeDefined();
});

test('lockGpu gives a stale lock to exactly one of many', async () => {
  await lock('dead', await deadPid());
  const results = await Promise.allSettled(Array.from({ length: 10 }, (_, i) => lock(`node-${i}`)));
  expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  expect(await readdir(dir)).toEqual(['gpu-GPU-1b2c.lock']);
});

test('parseGpuReport reads what nvidia-smi prints', () => {
  expect(parseGpuReport('GPU-1b2c-44, NVIDIA H200, 143771, 1024, 37, 41\n')).toEqual({
    uuid: 'GPU-1b2c-44',
    name: 'NVIDIA H200',
    memoryTotalBytes: 143771 * 1024 ** 2,
    memoryUsedBytes: 1024 ** 3,
    utilisationRatio: 0.37,
    temperatureCelsius: 41,
  });
});

test('parseGpuReport puts 0 for what a driver does not know, and null for what is no report', () => {
  expect(parseGpuReport('GPU-1, Orin, [N/A], [N/A], [N/A], 50')).toMatchObject({ memoryTotalBytes: 0, utilisationRatio: 0 });
  expect(parseGpuReport('No devices were found\n')).toBeNull();
  expect(parseGpuReport('')).toBeNull();
});

test('GpuWatch asks again after its interval, until stopped, and keeps the most memory it saw', async () => {
  const clock = new ManualClock();
  const MiB = 1024 ** 2;
  const lines = ['GPU-1, H200, 9, 4, 1, 50', '', 'GPU-1, H200, 9, 2, 1, 50'];
  let asked = 0;
  const query = async () => parseGpuReport(lines[asked++] ?? '');
  const watch = new GpuWatch('0', { clock, intervalMs: 5000, query });
  await watch.start();
  expect(watch.latest).toMatchObject({ memoryUsedBytes: 4 * MiB, memoryPeakBytes: 4 * MiB });
  await clock.advance(5000);
  expect(watch.latest).toBeNull();
  await clock.advance(5000);
  expect(watch.latest).toMatchObject({ memoryUsedBytes: 2 * MiB, memoryPeakBytes: 4 * MiB });
  watch.stop();
  await clock.advance(50_000);
  expect(asked).toBe(3);
  expect(clock.pendingCount).toBe(0);
});
