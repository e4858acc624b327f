/**
 * Pictures as objects of an S3 bucket, below a prefix. The one door to the vendor's SDK.
 *
 * A put is all or nothing by S3's own promise, and the server checks the bytes it got against their SHA-256. Reads
 * are checked here like those of any store, so the SDK's own checksums, which not every server has, stay off.
 */
import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  S3ServiceException,
  type StorageClass,
} from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import { type Clock, StatusError } from '#core';
import { ConfigError } from '#runtime';
import { parseBlobName } from './blob-name.js';
import { type BlobStore, checked, type ListedBlob, partsOf } from './blob-store.js';
import { resultMissing, storeFull, storeUnavailable } from './status.js';

export interface S3StoreOptions {
  /** Undefined: AWS. */
  readonly endpoint: string | undefined;
  readonly region: string;
  readonly bucket: string;
  /** What keys begin with. */
  readonly prefix: string;
  /** The bucket stands in the path of URLs rather than in their host. */
  readonly pathStyle: boolean;
  readonly storageClass: StorageClass;
  /** Of one operation, its repetitions included. */
  readonly timeoutMs: number;
  /** Default 1000, as many as S3 gives at once. */
  readonly pageCount?: number;
  readonly clock: Clock;
}

/** Of the SDK, for what is worth another try; 0.1 s apart and more. */
const MAX_ATTEMPTS = 3;
const CONNECT_TIMEOUT_MS = 3000;
/** Of a try in which nothing comes or goes. */
const IDLE_TIMEOUT_MS = 15_000;
/** No such bucket, none of ours, in another region, or signed with the wrong key. */
const REFUSALS: ReadonlySet<number> = new Set([301, 400, 401, 403, 404]);
const FULL: ReadonlySet<string> = new Set(['InsufficientStorage', 'QuotaExceeded', 'XMinioStorageFull', 'XMinioAdminBucketQuotaExceeded']);

export class S3Store implements BlobStore {
  readonly #options: S3StoreOptions;
  readonly #client: S3Client;

  constructor(options: S3StoreOptions) {
    const { endpoint, region, pathStyle } = options;
    this.#options = options;
    this.#client = new S3Client({
      region,
      ...(endpoint !== undefined && { endpoint }),
      forcePathStyle: pathStyle,
      retryMode: 'standard',
      maxAttempts: MAX_ATTEMPTS,
      requestHandler: { connectionTimeout: CONNECT_TIMEOUT_MS, socketTimeout: IDLE_TIMEOUT_MS },
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
    });
  }

  /** A server that is away may come; one that refuses will go on refusing. */
  async start(): Promise<void> {
    const { bucket: Bucket } = this.#options;
    try {
      await this.#within((abortSignal) => this.#client.send(new HeadBucketCommand({ Bucket }), { abortSignal }));
    } catch (error) {
      const why = refusal(error);
      if (why !== undefined) throw new ConfigError([`DMESH_JOBS_S3_BUCKET: expected a bucket that can be used, got ${why} for ${Bucket}`]);
    }
  }

  async put(name: string, bytes: Uint8Array): Promise<void> {
    const { mimeType, sha256 } = partsOf(name);
    const { storageClass } = this.#options;
    const command = new PutObjectCommand({
      ...this.#at(name),
      Body: bytes,
      ContentLength: bytes.byteLength,
      ContentType: mimeType,
      ChecksumSHA256: Buffer.from(sha256, 'hex').toString('base64'),
      // What it is anyway need not be understood by the server.
      ...(storageClass !== 'STANDARD' && { StorageClass: storageClass }),
    });
    await this.#send('writing', (abortSignal) => this.#client.send(command, { abortSignal }));
  }

  async read(name: string): Promise<Uint8Array> {
    const command = new GetObjectCommand(this.#at(name));
    const bytes = await this.#send('reading', async (abortSignal) => {
      try {
        const { Body } = await this.#client.send(command, { abortSignal });
        return await Body?.transformToByteArray();
      } catch (error) {
        throw isMissing(error) ? resultMissing(name, error) : error;
      }
    });
    return checked(name, bytes ?? new Uint8Array());
  }

  async delete(name: string): Promise<void> {
    const command = new DeleteObjectCommand(this.#at(name));
    await this.#send('removing', async (abortSignal) => {
      await this.#client.send(command, { abortSignal }).catch((error: unknown) => {
        if (!isMissing(error)) throw error;
      });
    });
  }

  async *list(): AsyncIterable<readonly ListedBlob[]> {
    const { bucket: Bucket, prefix: Prefix, pageCount: MaxKeys = 1000 } = this.#options;
    let ContinuationToken: string | undefined;
    do {
      const command = new ListObjectsV2Command({ Bucket, Prefix, MaxKeys, ...(ContinuationToken && { ContinuationToken }) });
      const page = await this.#send('listing', (abortSignal) => this.#client.send(command, { abortSignal }));
      const blobs = (page.Contents ?? []).flatMap(({ Key = '', Size = 0, LastModified }): readonly ListedBlob[] => {
        const name = Key.slice(Prefix.length);
        const parts = parseBlobName(name);
        return parts && LastModified ? [{ name, parts, sizeBytes: Size, storedAtMs: LastModified.getTime() }] : [];
      });
      if (blobs.length > 0) yield blobs;
      ContinuationToken = page.NextContinuationToken;
    } while (ContinuationToken !== undefined);
  }

  /** S3 shows nothing of a put before it is complete. */
  async sweepTemporary(): Promise<number> {
    return 0;
  }

  async freeBytes(): Promise<undefined> {
    return undefined;
  }

  async link(name: string, validForMs: number): Promise<string | undefined> {
    const at = this.#at(name);
    return this.#send('linking', async (abortSignal) => {
      try {
        await this.#client.send(new HeadObjectCommand(at), { abortSignal });
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw error;
      }
      return getSignedUrl(this.#client, new GetObjectCommand(at), { expiresIn: Math.ceil(validForMs / 1000) });
    });
  }

  close(): void {
    this.#client.destroy();
  }

  #at(name: string): { readonly Bucket: string; readonly Key: string } {
    const { bucket, prefix } = this.#options;
    partsOf(name);
    return { Bucket: bucket, Key: prefix + name };
  }

  async #send<T>(doing: string, send: (signal: AbortSignal) => Promise<T>): Promise<T> {
    try {
      return await this.#within(send);
    } catch (error) {
      throw statusOf(error, doing);
    }
  }

  async #within<T>(send: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { clock, timeoutMs } = this.#options;
    const late = new AbortController();
    const cancel = clock.schedule(timeoutMs, () => late.abort());
    try {
      return await send(late.signal);
    } finally {
      cancel();
    }
  }
}

/** A missing bucket is no missing picture. */
function isMissing(error: unknown): boolean {
  return error instanceof S3ServiceException && error.$metadata.httpStatusCode === 404 && error.name !== 'NoSuchBucket';
}

/** Undefined: it may be better later. */
function refusal(error: unknown): string | undefined {
  if (error instanceof S3ServiceException) {
    const status = error.$metadata.httpStatusCode ?? 0;
    return REFUSALS.has(status) ? `${status} ${error.name}` : undefined;
  }
  return error instanceof Error && error.name === 'CredentialsProviderError' ? error.message : undefined;
}

/** The one table from the vendor's errors to ours: all but a full store may be better later. */
function statusOf(error: unknown, doing: string): unknown {
  if (!(error instanceof Error) || error instanceof StatusError) return error;
  if (error instanceof S3ServiceException && (error.$metadata.httpStatusCode === 507 || FULL.has(error.name))) {
    return storeFull(error.name, error);
  }
  return storeUnavailable(`${error.name === 'Error' ? error.message : error.name} while ${doing}`, error);
}
