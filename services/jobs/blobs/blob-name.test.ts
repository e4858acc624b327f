import { expect, test } from 'vitest';
import { type BlobParts, blobName, parseBlobName, sha256Of } from './blob-name.js';

const parts: BlobParts = {
  tenant: 'acme',
  jobId: 'portrait-7',
  uid: '3f2c-9a',
  attempt: 2,
  imageIndex: 0,
  sha256: sha256Of(Buffer.from('a picture')),
  mimeType: 'image/png',
};

test.each([
  [parts],
  [{ ...parts, tenant: 'a.b_c-d..', jobId: '-1-2-', uid: '_-3-4-5', attempt: 4_000_000_000, imageIndex: 99 }],
  [{ ...parts, tenant: 'x'.repeat(64), jobId: 'y'.repeat(64), uid: 'z'.repeat(64), mimeType: 'image/jpeg' }],
  [{ ...parts, mimeType: 'image/webp' }],
])('parseBlobName() gives the parts back: %o', (made) => {
  const name = blobName(made);
  expect(parseBlobName(name)).toEqual(made);
  // The longest name of a file that common file systems take.
  expect(name.split('/')[1]?.length).toBeLessThanOrEqual(255);
});

test('blobName() says whose it is and what it holds', () => {
  expect(blobName(parts)).toBe(`acme/portrait-7.3f2c-9a-2-0-${parts.sha256}.png`);
});

test.each([
  [{ tenant: '..' }],
  [{ tenant: '' }],
  [{ tenant: 'a/b' }],
  [{ jobId: '../../etc/passwd' }],
  [{ jobId: 'a.b' }],
  [{ uid: '' }],
  [{ attempt: -1 }],
  [{ attempt: 1.5 }],
  [{ sha256: 'ABC' }],
  [{ mimeType: 'image/gif' }],
])('blobName() refuses %o', (wrong) => {
  expect(() => blobName({ ...parts, ...wrong })).toThrow("expected the parts of a picture's name");
});

test.each(['', '/', 'acme', '../x', `/${blobName(parts)}`, `${blobName(parts)}/x`, `${blobName(parts)}.tmp`, '.tmp/x'])(
  'parseBlobName(%j) is none',
  (name) => {
    expect(parseBlobName(name)).toBeUndefined();
  },
);
