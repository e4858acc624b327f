/**
 * What a stored picture is called. The name says whose it is, so that a sweep can ask the records about it, and
 * which bytes it must hold, so that every read can check them. An attempt writes names of its own: who loses
 * can drop them without asking who else uses them.
 *
 *   acme/portrait-7.3f2c9a-2-0-<SHA-256 in hex>.png
 *   tenant/job.uid-attempt-image-digest.type
 *
 * Safe as a path and as an S3 key: nothing else is ever taken for a name.
 */
import { createHash } from 'node:crypto';

export interface BlobParts {
  readonly tenant: string;
  readonly jobId: string;
  /** Of the job; never equal to another's, also when a job is deleted and its id used again. */
  readonly uid: string;
  readonly attempt: number;
  readonly imageIndex: number;
  /** Of the bytes, in hex. */
  readonly sha256: string;
  readonly mimeType: string;
}

const EXTENSIONS: Readonly<Record<string, string>> = { 'image/png': 'png', 'image/jpeg': 'jpg', 'image/webp': 'webp' };
const MIME_TYPES = new Map(Object.entries(EXTENSIONS).map(([mimeType, extension]) => [extension, mimeType]));
export const TENANT_FORM = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const LEAF_FORM = /^([A-Za-z0-9_-]{1,64})\.([A-Za-z0-9_-]{1,64})-(\d{1,10})-(\d{1,3})-([0-9a-f]{64})\.([a-z]+)$/;

/** Throws on parts that cannot be read back from it: a fault in the caller. */
export function blobName({ tenant, jobId, uid, attempt, imageIndex, sha256, mimeType }: BlobParts): string {
  const name = `${tenant}/${jobId}.${uid}-${attempt}-${imageIndex}-${sha256}.${EXTENSIONS[mimeType]}`;
  const readBack = parseBlobName(name);
  // The attempt, too: a negative one would read as a part of the uid.
  if (readBack?.attempt !== attempt) throw new Error(`expected the parts of a picture's name, got ${JSON.stringify(name)}`);
  return name;
}

/** Undefined: not the name of a picture. */
export function parseBlobName(name: string): BlobParts | undefined {
  const [tenant = '', leaf = '', ...rest] = name.split('/');
  const match = LEAF_FORM.exec(leaf);
  if (!match || rest.length > 0 || !TENANT_FORM.test(tenant)) return undefined;
  const [, jobId = '', uid = '', attempt, imageIndex, sha256 = '', extension = ''] = match;
  const mimeType = MIME_TYPES.get(extension);
  if (mimeType === undefined) return undefined;
  return { tenant, jobId, uid, attempt: Number(attempt), imageIndex: Number(imageIndex), sha256, mimeType };
}

export function sha256Of(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
