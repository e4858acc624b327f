import { describe, expect, test } from 'vitest';
import { Code, Reason } from '#core';
import { type BlobPiece, Downloads } from './download.js';

const KiB = 1024;
const bytes = Buffer.from(Array.from({ length: 600 * KiB }, (_, index) => index % 251));
const never = new AbortController().signal;

async function all(pieces: AsyncIterable<BlobPiece>): Promise<BlobPiece[]> {
  const taken: BlobPiece[] = [];
  for await (const piece of pieces) taken.push(piece);
  return taken;
}

describe('Downloads', () => {
  const downloads = new Downloads({ read: async () => bytes, maxCount: 1 });

  test.each([
    [0, [0, 256 * KiB, 512 * KiB]],
    [1, [1, 256 * KiB + 1, 512 * KiB + 1]],
    [256 * KiB, [256 * KiB, 512 * KiB]],
    [600 * KiB - 1, [600 * KiB - 1]],
    [600 * KiB, [600 * KiB]],
  ])('from(%i) gives the rest, in pieces of at most 256 KiB', async (offset, offsets) => {
    const pieces = await all(downloads.from('name', offset, never));
    expect(pieces.map((piece) => piece.offset)).toEqual(offsets);
    expect(pieces.every((piece) => piece.totalBytes === bytes.byteLength && piece.data.byteLength <= 256 * KiB)).toBe(true);
    expect(Buffer.compare(Buffer.concat(pieces.map((piece) => piece.data)), bytes.subarray(offset))).toBe(0);
  });

  test('from() past the end is OUT_OF_RANGE', async () => {
    const pieces = all(downloads.from('name', bytes.byteLength + 1, never));
    await expect(pieces).rejects.toMatchObject({ code: Code.OUT_OF_RANGE, reason: Reason.BAD_REQUEST });
    await expect(all(downloads.from('name', bytes.byteLength + 1, never))).rejects.toThrow('offset: expected at most 614400, got 614401');
  });

  test('hold no more than so many pictures at once, whoever comes first goes first', async () => {
    const begun: string[] = [];
    const read = async (name: string) => {
      begun.push(name);
      return bytes;
    };
    const two = new Downloads({ maxCount: 2, read });
    const readers = ['x/a', 'y/b', 'z/c', 'x/d'].map((name) => two.from(name, 0, never)[Symbol.asyncIterator]());
    const first = readers.map((reader) => reader.next());
    await Promise.all(first.slice(0, 2));
    expect(begun).toEqual(['x/a', 'y/b']);
    await readers[1]?.return?.(); // its caller has gone
    await first[2];
    expect(begun).toEqual(['x/a', 'y/b', 'z/c']);
    for (const reader of readers) await reader.return?.();
    await first[3];
    expect(begun).toEqual(['x/a', 'y/b', 'z/c', 'x/d']);
  });

  test('readers of one tenant leave places to others, however slow they are', async () => {
    const four = new Downloads({ maxCount: 4, read: async () => bytes });
    const slow = ['x/1', 'x/2', 'x/3'].map((name) => four.from(name, 0, never)[Symbol.asyncIterator]());
    const first = slow.map((reader) => reader.next());
    await Promise.all(first.slice(0, 2));
    await all(four.from('y/1', 0, never));
    await slow[0]?.return?.();
    await first[2];
    for (const reader of slow) await reader.return?.();
  });

  test('who goes while it waits takes no place', async () => {
    const one = new Downloads({ maxCount: 1, read: async () => bytes });
    const reader = one.from('a', 0, never)[Symbol.asyncIterator]();
    await reader.next();
    const leaving = new AbortController();
    const left = all(one.from('b', 0, leaving.signal));
    leaving.abort(new Error('gone'));
    await expect(left).rejects.toThrow('gone');
    await reader.return?.();
    await all(one.from('c', 0, never));
  });

  test('a read that fails gives its place back', async () => {
    let fails = true;
    const one = new Downloads({ maxCount: 1, read: async () => (fails ? Promise.reject(new Error('damaged')) : bytes) });
    await expect(all(one.from('a', 0, never))).rejects.toThrow('damaged');
    fails = false;
    await all(one.from('a', 0, never));
  });
});
