import { access, mkdir, mkdtemp, readdir, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Code, Reason } from '#core';
import { ConfigError } from '#runtime';
import { describeBlobStore, listAll, PAGE_COUNT, picture } from '../../../test/contract/blob-store-conformance.js';
import { FileStore } from './file-store.js';

const fileOf = (dir: string, name: string) => {
  const [tenant = '', leaf = ''] = name.split('/');
  const digest = /-([0-9a-f]{64})\.png$/.exec(leaf)?.[1] ?? expect.fail(name);
  return path.join(dir, tenant, digest.slice(0, 2), leaf);
};
const open = (dir: string) => new FileStore({ dir, setting: 'DMESH_JOBS_STORE_DIR', pageCount: PAGE_COUNT, wallNow: Date.now });
const unavailable = { code: Code.UNAVAILABLE, reason: Reason.STORE_UNAVAILABLE };

describeBlobStore('FileStore', async () => {
  const dir = await mkdtemp(path.join(tmpdir(), 'dmesh-blobs-'));
  const stranger = path.join(dir, 'acme/00/notes.txt');
  return {
    open: (area = 'live') => open(area === 'live' ? dir : path.join(dir, '.archive')),
    overwrite: (name, bytes) => writeFile(fileOf(dir, name), bytes),
    addStranger: async () => {
      await mkdir(path.dirname(stranger), { recursive: true });
      await writeFile(stranger, 'not a picture');
    },
    strangerIsThere: () => access(stranger).then(() => true),
    close: () => rm(dir, { recursive: true, force: true }),
  };
});

describe('FileStore', () => {
  let scratch = '';
  let dir = '';
  let store: FileStore;
  beforeEach(async () => {
    scratch = await mkdtemp(path.join(tmpdir(), 'dmesh-blobs-'));
    dir = path.join(scratch, 'a/b/store');
    store = open(dir);
    await store.start();
  });
  afterEach(() => rm(scratch, { recursive: true, force: true }));

  test('what a killed put left is no picture, and goes when it is old', async () => {
    const { name, bytes } = picture();
    await store.put(name, bytes);
    const leftover = path.join(dir, '.tmp/0b8f');
    await writeFile(leftover, bytes.subarray(0, 100));
    const fresh = path.join(dir, '.tmp/1c9a');
    await writeFile(fresh, bytes.subarray(0, 100));
    const anHourAgo = Date.now() / 1000 - 3600;
    await utimes(leftover, anHourAgo, anHourAgo);
    expect((await listAll(store)).map((blob) => blob.name)).toEqual([name]);
    expect(await store.sweepTemporary(1_800_000)).toBe(1);
    expect(await readdir(path.join(dir, '.tmp'))).toEqual(['1c9a']);
  });

  test('a put leaves nothing beside the picture, also when it fails', async () => {
    const { name, bytes } = picture();
    await store.put(name, bytes);
    const other = picture({ tenant: 'blocked' });
    await writeFile(path.join(dir, 'blocked'), 'a file where a folder belongs');
    await expect(store.put(other.name, other.bytes)).rejects.toMatchObject(unavailable);
    expect(await readdir(path.join(dir, '.tmp'))).toEqual([]);
  });

  test('put() makes folders again that somebody removed', async () => {
    const { name, bytes } = picture();
    await store.put(name, bytes);
    await rm(path.join(dir, 'acme'), { recursive: true });
    await expect(store.put(name, bytes)).rejects.toMatchObject(unavailable);
    await store.put(name, bytes);
    expect(Buffer.compare(await store.read(name), bytes)).toBe(0);
  });

  test('put() makes a folder again whose parent has gone as well', async () => {
    const { name, bytes } = picture();
    await store.put(name, bytes);
    await rm(path.join(dir, 'acme'), { recursive: true });
    const others = Array.from({ length: 4 }, () => picture());
    for (const other of others) await store.put(other.name, other.bytes).catch(() => {}); // the first finds out
    for (const other of others) await store.put(other.name, other.bytes);
    for (const other of others) expect(Buffer.compare(await store.read(other.name), other.bytes)).toBe(0);
  });

  test('a folder that is away has lost nothing: STORE_UNAVAILABLE until it is back', async () => {
    const { name, bytes } = picture();
    await store.put(name, bytes);
    await rename(dir, `${dir}-away`);
    await mkdir(dir); // as a place where nothing is mounted
    await expect(store.read(name)).rejects.toMatchObject(unavailable);
    await expect(store.put(name, bytes)).rejects.toMatchObject(unavailable);
    await expect(store.freeBytes()).rejects.toMatchObject(unavailable);
    expect(await readdir(dir)).toEqual([]);
    await rm(dir, { recursive: true });
    await rename(`${dir}-away`, dir);
    expect(Buffer.compare(await store.read(name), bytes)).toBe(0);
  });

  test('a message tells nobody where the folder is', async () => {
    await rm(dir, { recursive: true });
    const { name, bytes } = picture();
    await expect(store.put(name, bytes)).rejects.toThrow(/^the store of pictures: ENOENT while writing$/);
  });

  test.each([
    ['a file', async (place: string) => writeFile(place, '')],
    ['below a file', async (place: string) => writeFile(path.dirname(place), '')],
  ])('start() where the folder is %s is a wrong configuration', async (_, block) => {
    const place = path.join(scratch, 'x/y');
    await mkdir(scratch, { recursive: true });
    if (_ === 'a file') await mkdir(path.dirname(place));
    await block(place);
    const failed = await open(place)
      .start()
      .catch((error: unknown) => error);
    expect(failed).toBeInstanceOf(ConfigError);
    expect(String(failed)).toContain(`DMESH_JOBS_STORE_DIR: expected a folder that can be written, got ENOTDIR for ${place}`);
  });

  test.runIf(process.platform === 'linux')('start() in a folder where none can be made ends', async () => {
    await expect(open('/proc/nope/store').start()).rejects.toThrow('got ENOENT for /proc/nope/store');
  });

  test('freeBytes() is what the disk says', async () => {
    expect(await store.freeBytes()).toBeGreaterThan(0);
  });
});
