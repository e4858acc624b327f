import { mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest';
import { Reason } from '#core';
import { EnvReader, systemClock } from '#runtime';
import { picture } from '../../../test/contract/blob-store-conformance.js';
import { type Blobs, openBlobs } from './blobs.js';
import { readBlobConfig } from './config.js';
import type { BlobEvent } from './events.js';

const DAY_MS = 24 * 3_600_000;
const never = new AbortController().signal;
let dir = '';
let nowMs = 0;
let blobs: Blobs;
let events: BlobEvent[] = [];

const open = (env: Record<string, string> = {}) =>
  openBlobs({
    config: readBlobConfig(new EnvReader({ DMESH_JOBS_STORE_DIR: dir, DMESH_JOBS_ARCHIVE_AFTER: '48h', ...env }, 'DMESH_JOBS_')),
    clock: systemClock,
    wallNow: () => nowMs,
    emit: (event) => events.push(event),
  });
const sweepAll = (from = blobs) => from.sweep({ isNamed: async () => true, isMine: () => true, signal: never });
async function read(name: string, from = blobs): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const { data } of from.readFrom(name, 0, never)) pieces.push(data);
  return Buffer.concat(pieces);
}

beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'dmesh-blobs-'));
  nowMs = Date.now();
  events = [];
  blobs = await open();
  await blobs.start();
});
afterEach(() => rm(dir, { recursive: true, force: true }));

test('a picture is read the same before, while and after it moves to the archive', async () => {
  const pictures = Array.from({ length: 10 }, () => picture({ sizeBytes: 300_000 }));
  for (const { name, bytes } of pictures) await blobs.put(name, bytes);
  expect(await sweepAll()).toMatchObject({ movedCount: 0 });
  nowMs += 3 * DAY_MS;
  const moving = sweepAll();
  let over = false;
  void moving.finally(() => (over = true)).catch(() => {});
  for (let round = 0; !over || round === 0; round++) {
    for (const { name, bytes } of pictures) expect(Buffer.compare(await read(name), bytes)).toBe(0);
  }
  expect(await moving).toMatchObject({ movedCount: 10, archivedCount: 10 });
  for (const { name, bytes } of pictures) expect(Buffer.compare(await read(name), bytes)).toBe(0);
});

test('the archive is read also where nothing moves there any more', async () => {
  const { name, bytes } = picture();
  await blobs.put(name, bytes);
  nowMs += 3 * DAY_MS;
  await sweepAll();
  const later = await open({ DMESH_JOBS_ARCHIVE_AFTER: '0s' });
  await later.start();
  expect(Buffer.compare(await read(name, later), bytes)).toBe(0);
});

test.each([
  ['.', false],
  ['old', false],
  ['..', false],
  ['.old', true],
  ['../old', true],
])('an archive in %s, seen from the store: %s', async (place, isApart) => {
  const two = await open({ DMESH_JOBS_STORE_DIR: path.join(dir, 'store'), DMESH_JOBS_STORE_ARCHIVE_DIR: path.join(dir, 'store', place) });
  const started = two.start();
  if (isApart) await started;
  else await expect(started).rejects.toThrow('DMESH_JOBS_STORE_ARCHIVE_DIR: expected a folder apart from');
});

test('an archive that is the store by another name is refused', async () => {
  await symlink(dir, `${dir}-link`);
  onTestFinished(() => rm(`${dir}-link`));
  const two = await open({ DMESH_JOBS_STORE_ARCHIVE_DIR: `${dir}-link` });
  await expect(two.start()).rejects.toThrow('DMESH_JOBS_STORE_ARCHIVE_DIR: expected a folder apart from');
});

test('delete() reaches the archive', async () => {
  const { name, bytes } = picture();
  await blobs.put(name, bytes);
  nowMs += 3 * DAY_MS;
  await sweepAll();
  await blobs.delete(name);
  await expect(read(name)).rejects.toMatchObject({ reason: Reason.RESULT_MISSING });
});

test('refuseWhenFull() goes by the disk of the store', async () => {
  await blobs.refuseWhenFull(0);
  await expect(blobs.refuseWhenFull(Number.MAX_SAFE_INTEGER)).rejects.toMatchObject({ reason: Reason.STORE_FULL });
});

test('a folder has no links', async () => {
  const { name, bytes } = picture();
  await blobs.put(name, bytes);
  expect(await blobs.link(name)).toBeUndefined();
});

test('every call is told, with what became of it', async () => {
  const { name, bytes } = picture();
  await blobs.put(name, bytes);
  await read(name);
  await blobs.delete(name);
  await read(name).catch(() => {});
  expect(events.map(({ place, operation, failure, sizeBytes }) => [place, operation, failure?.reason, sizeBytes])).toEqual([
    ['live', 'put', undefined, 1000],
    ['live', 'read', undefined, 1000],
    ['live', 'delete', undefined, 0],
    ['archive', 'delete', undefined, 0],
    ['live', 'read', Reason.RESULT_MISSING, 0],
    ['archive', 'read', Reason.RESULT_MISSING, 0],
  ]);
});
