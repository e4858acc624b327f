/**
 * What every place for pictures must do, whatever is behind it: run this on a new one before the jobs service
 * keeps anything there. Two stores look at each place, as two replicas do.
 */
import { randomBytes } from 'node:crypto';
import { beforeEach, describe, expect, test } from 'vitest';
import { Code, Reason } from '#core';
import { blobName, sha256Of } from '../../services/jobs/blobs/blob-name.js';
import type { BlobStore, ListedBlob } from '../../services/jobs/blobs/blob-store.js';
import { type SweepOptions, sweep } from '../../services/jobs/blobs/sweep.js';
import { useShared } from '../support/shared.js';

/** A place that is up and empty. */
export interface PlaceUnderTest {
  /** Another look at the same pictures; lists in pages of `PAGE_COUNT`. */
  open(area?: 'live' | 'archive'): BlobStore;
  /** Behind the store's back: puts other bytes where a picture is. */
  overwrite(name: string, bytes: Uint8Array): Promise<void>;
  /** Puts a file there that is no picture. */
  addStranger(): Promise<void>;
  strangerIsThere(): Promise<boolean>;
  close(): Promise<void>;
}

export const PAGE_COUNT = 4;
const HOUR_MS = 3_600_000;
let madeCount = 0;

export interface Picture {
  readonly name: string;
  readonly bytes: Buffer;
}

/** Unlike any made before. */
export function picture({ jobId = `job-${++madeCount}`, sizeBytes = 1000, tenant = 'acme' } = {}): Picture {
  const bytes = randomBytes(sizeBytes);
  const parts = { tenant, jobId, uid: 'u1', attempt: 1, imageIndex: 0, mimeType: 'image/png' };
  return { name: blobName({ ...parts, sha256: sha256Of(bytes) }), bytes };
}

export async function listAll(store: BlobStore): Promise<ListedBlob[]> {
  const pages: (readonly ListedBlob[])[] = [];
  for await (const page of store.list()) pages.push(page);
  return pages.flat();
}

const namesOf = async (store: BlobStore) => (await listAll(store)).map(({ name }) => name).sort();
const missing = { code: Code.DATA_LOSS, reason: Reason.RESULT_MISSING };
const damaged = { code: Code.DATA_LOSS, reason: Reason.RESULT_DAMAGED };

export function describeBlobStore(name: string, start: () => Promise<PlaceUnderTest>): void {
  describe(`${name}: contract`, () => {
    let place: PlaceUnderTest;
    let store: BlobStore;
    let archive: BlobStore;
    let other: BlobStore;
    useShared(
      async () => {
        place = await start();
        store = place.open();
        archive = place.open('archive');
        other = place.open();
        for (const one of [store, archive, other]) await one.start();
      },
      async () => {
        for (const one of [store, archive, other]) one?.close();
        await place?.close();
      },
    );
    beforeEach(async () => {
      for (const one of [store, archive]) for (const blob of await listAll(one)) await one.delete(blob.name);
    });

    test.each([1, 1000, 6_000_000])('what put() kept read() gives, %i bytes, to every replica', async (sizeBytes) => {
      const { name, bytes } = picture({ sizeBytes });
      await store.put(name, bytes);
      expect(Buffer.compare(await store.read(name), bytes)).toBe(0);
      expect(Buffer.compare(await other.read(name), bytes)).toBe(0);
    });

    test('put() of the same picture again changes nothing', async () => {
      const { name, bytes } = picture();
      await Promise.all([store.put(name, bytes), store.put(name, bytes), other.put(name, bytes)]);
      await store.put(name, bytes);
      expect(await namesOf(store)).toEqual([name]);
      expect(Buffer.compare(await store.read(name), bytes)).toBe(0);
    });

    test('read() of what is not there is RESULT_MISSING', async () => {
      await expect(store.read(picture().name)).rejects.toMatchObject(missing);
    });

    test.each([
      ['one bit is another', (bytes: Buffer) => Buffer.from(bytes).fill((bytes[500] ?? 0) ^ 1, 500, 501)],
      ['the end is gone', (bytes: Buffer) => bytes.subarray(0, 999)],
      ['nothing is left', () => Buffer.alloc(0)],
      ['there is more', (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc(1)])],
      ['the end is zeros', (bytes: Buffer) => Buffer.concat([bytes.subarray(0, 512), Buffer.alloc(488)])],
    ])('read() is RESULT_DAMAGED when %s; put() heals it', async (_, harm) => {
      const { name, bytes } = picture();
      await store.put(name, bytes);
      await place.overwrite(name, harm(bytes));
      await expect(store.read(name)).rejects.toMatchObject(damaged);
      await store.put(name, bytes);
      expect(Buffer.compare(await store.read(name), bytes)).toBe(0);
    });

    test('delete() leaves nothing, and may be said twice', async () => {
      const { name, bytes } = picture();
      await store.put(name, bytes);
      await Promise.all([store.delete(name), other.delete(name)]);
      await store.delete(name);
      await expect(store.read(name)).rejects.toMatchObject(missing);
      expect(await namesOf(store)).toEqual([]);
    });

    test('list() tells name, size and age of all, in bounded pages', async () => {
      const pictures = Array.from({ length: 2 * PAGE_COUNT + 1 }, (_, index) =>
        picture({ sizeBytes: 10 + index, tenant: `t-${index % 2}` }),
      );
      for (const { name, bytes } of pictures) await store.put(name, bytes);
      const pages: (readonly ListedBlob[])[] = [];
      for await (const page of other.list()) pages.push(page);
      expect(Math.max(...pages.map((page) => page.length))).toBeLessThanOrEqual(PAGE_COUNT);
      const sizes = new Map(pages.flat().map(({ name, sizeBytes }) => [name, sizeBytes]));
      expect(sizes).toEqual(new Map(pictures.map(({ name, bytes }) => [name, bytes.byteLength])));
      for (const { name, parts, storedAtMs } of pages.flat()) {
        expect(blobName(parts)).toBe(name);
        expect(Math.abs(Date.now() - storedAtMs)).toBeLessThan(HOUR_MS);
      }
    });

    test('list() goes on while pictures are deleted and added', async () => {
      const pictures = Array.from({ length: 3 * PAGE_COUNT }, () => picture());
      for (const { name, bytes } of pictures) await store.put(name, bytes);
      const seen: string[] = [];
      for await (const page of store.list()) {
        for (const { name } of page) {
          seen.push(name);
          await other.delete(name);
        }
        const { name, bytes } = picture({ tenant: '0' });
        await other.put(name, bytes);
      }
      expect(seen).toEqual(expect.arrayContaining(pictures.map(({ name }) => name)));
    });

    test('what is no picture is neither listed nor touched', async () => {
      await place.addStranger();
      expect(await listAll(store)).toEqual([]);
      await store.sweepTemporary(0);
      expect(await place.strangerIsThere()).toBe(true);
    });

    test('a name that is none reaches nothing', async () => {
      for (const name of ['../../etc/passwd', '', 'acme', `/${picture().name}`]) {
        await expect(store.put(name, Buffer.from('x'))).rejects.toThrow('expected the name of a picture');
        await expect(store.read(name)).rejects.toThrow('expected the name of a picture');
        await expect(store.delete(name)).rejects.toThrow('expected the name of a picture');
      }
    });

    test('who reads while others put and delete gets all of it or nothing', async () => {
      const { name, bytes } = picture({ sizeBytes: 300_000 });
      const writing = (async () => {
        for (let round = 0; round < 5; round++) {
          await Promise.all([store.put(name, bytes), other.put(name, bytes)]);
          await (round % 2 === 0 ? store : other).delete(name);
        }
      })();
      let over = false;
      void writing.finally(() => (over = true)).catch(() => {});
      const reading = async (from: BlobStore) => {
        while (!over) {
          const read = await from.read(name).catch((error: { reason?: string }) => error);
          if (read instanceof Uint8Array) expect(read.byteLength).toBe(bytes.byteLength);
          else expect(read).toMatchObject(missing);
        }
      };
      await Promise.all([writing, reading(store), reading(other)]);
    });

    test('link() leads to the picture, where there are links, and to nothing that is not there', async () => {
      const { name, bytes } = picture();
      expect(await store.link(name, HOUR_MS)).toBeUndefined();
      await store.put(name, bytes);
      const url = await store.link(name, HOUR_MS);
      if (url === undefined) return;
      const answer = await fetch(url);
      expect(answer.headers.get('content-type')).toBe('image/png');
      expect(Buffer.compare(Buffer.from(await answer.arrayBuffer()), bytes)).toBe(0);
    });

    describe('sweep()', () => {
      const places = () => ({ live: store, archive });
      const rules = (ageMs: number, archiveAfterMs = 0) => ({ orphanAfterMs: HOUR_MS, archiveAfterMs, wallNow: () => Date.now() + ageMs });
      const options = (named: readonly string[], more: Partial<SweepOptions> = {}): SweepOptions => ({
        isNamed: async (blob) => named.includes(blob.name),
        isMine: () => true,
        signal: new AbortController().signal,
        ...more,
      });
      const put = async (where: BlobStore, made = picture()) => {
        await where.put(made.name, made.bytes);
        return made;
      };

      test('removes what nobody names, in both places, once the grace period is over', async () => {
        const named = await put(store);
        await put(store);
        await put(archive);
        expect(await sweep(places(), rules(0), options([named.name]))).toMatchObject({ orphanCount: 0, liveCount: 2, liveBytes: 2000 });
        const figures = await sweep(places(), rules(2 * HOUR_MS), options([named.name]));
        expect(figures).toMatchObject({ orphanCount: 2, liveCount: 1, liveBytes: 1000, archivedCount: 0 });
        expect(await namesOf(store)).toEqual([named.name]);
      });

      test('looks only at its share', async () => {
        const mine = await put(store, picture({ jobId: 'mine' }));
        const theirs = await put(store, picture({ jobId: 'theirs' }));
        await sweep(places(), rules(2 * HOUR_MS), options([], { isMine: (jobId) => jobId === 'mine' }));
        await expect(store.read(mine.name)).rejects.toMatchObject(missing);
        expect(await namesOf(store)).toEqual([theirs.name]);
      });

      test('removes nothing when the records do not answer', async () => {
        const made = await put(store);
        const isNamed = () => Promise.reject(new Error('NATS is away'));
        await expect(sweep(places(), rules(2 * HOUR_MS), options([], { isNamed }))).rejects.toThrow('NATS is away');
        expect(await namesOf(store)).toEqual([made.name]);
      });

      test('ends when it is told to', async () => {
        await put(store);
        const signal = AbortSignal.abort(new Error('stopping'));
        await expect(sweep(places(), rules(0), options([], { signal }))).rejects.toThrow('stopping');
      });

      test('moves what is old to the archive, whole', async () => {
        const made = await put(store);
        expect(await sweep(places(), rules(HOUR_MS - 60_000, HOUR_MS), options([made.name]))).toMatchObject({ movedCount: 0 });
        const figures = await sweep(places(), rules(2 * HOUR_MS, HOUR_MS), options([made.name]));
        expect(figures).toMatchObject({ movedCount: 1, liveCount: 0, archivedCount: 1, archivedBytes: 1000 });
        expect(Buffer.compare(await archive.read(made.name), made.bytes)).toBe(0);
        expect(await namesOf(store)).toEqual([]);
      });

      test('ends a move that a crash left half done', async () => {
        const made = await put(store);
        await put(archive, made);
        await sweep(places(), rules(2 * HOUR_MS, HOUR_MS), options([made.name]));
        expect([await namesOf(store), await namesOf(archive)]).toEqual([[], [made.name]]);
      });

      test('two at once move everything once', async () => {
        const pictures = await Promise.all(Array.from({ length: 5 }, () => put(store)));
        const names = pictures.map(({ name }) => name).sort();
        await Promise.all([0, 1].map(() => sweep(places(), rules(2 * HOUR_MS, HOUR_MS), options(names))));
        expect([await namesOf(store), await namesOf(archive)]).toEqual([[], names]);
      });

      test('leaves what is damaged where it is, and goes on', async () => {
        const bad = await put(store);
        const good = await put(store);
        await place.overwrite(bad.name, Buffer.from('something else'));
        const figures = await sweep(places(), rules(2 * HOUR_MS, HOUR_MS), options([bad.name, good.name]));
        expect(figures).toMatchObject({ damagedCount: 1, movedCount: 1, failedCount: 0 });
        expect([await namesOf(store), await namesOf(archive)]).toEqual([[bad.name], [good.name]]);
      });
    });
  });
}
