/**
 * The pictures of durable jobs, as the rest of the service sees them: kept, dropped, read in pieces, looked after.
 * Which place they are in (live or archive, a folder or a bucket) is nobody's business beyond this folder.
 */
import path from 'node:path';
import { type Clock, Code, type Emit, Reason, StatusError } from '#core';
import type { BlobConfig } from './config.js';
import { type BlobPiece, Downloads } from './download.js';
import type { BlobEvent } from './events.js';
import { FileStore } from './file-store.js';
import { roomCheck } from './room.js';
import { type Places, type SweepFigures, type SweepOptions, sweep } from './sweep.js';
import { toldStore } from './told-store.js';

export interface Blobs {
  /** Rejects with a ConfigError where the store cannot be used as it is set up. */
  start(): Promise<void>;
  /**
   * Before a job is taken in: rejects with STORE_FULL when `promisedBytes` (all that jobs not yet drawn may come to,
   * this one included) would go into the reserve.
   */
  refuseWhenFull(promisedBytes: number): Promise<void>;
  /** Durable when it resolves; `name` is blobName(…). STORE_FULL, STORE_UNAVAILABLE: try again later. */
  put(name: string, bytes: Uint8Array): Promise<void>;
  /** It is fine when there is none. */
  delete(name: string): Promise<void>;
  /**
   * From `offset` to the end, checked as a whole before the first piece; at least one piece, empty when `offset` is
   * the end. OUT_OF_RANGE past it, DATA_LOSS/RESULT_MISSING or RESULT_DAMAGED. Waits while too many are being read.
   */
  readFrom(name: string, offset: number, signal: AbortSignal): AsyncIterable<BlobPiece>;
  /** Where anybody may fetch it for a while; undefined where the store has no such thing, or no such picture. */
  link(name: string): Promise<string | undefined>;
  /** One round of housekeeping; to be called every `sweepEveryMs`. */
  sweep(options: SweepOptions): Promise<SweepFigures>;
  close(): void;
}

export interface BlobsOptions {
  readonly config: BlobConfig;
  readonly clock: Clock;
  readonly wallNow: () => number;
  readonly emit: Emit<BlobEvent>;
}

export async function openBlobs(options: BlobsOptions): Promise<Blobs> {
  const { config, clock, wallNow, emit } = options;
  const { checkApart, ...silent } = await placesOf(options);
  const live = toldStore(silent.live, { place: 'live', clock, emit });
  const archive = toldStore(silent.archive, { place: 'archive', clock, emit });
  const places = { live, archive };
  const { orphanAfterMs, archiveAfterMs } = config;
  const downloads = new Downloads({ read: (name) => readEither(places, name), maxCount: config.readingCount });
  return {
    async start() {
      await live.start();
      await archive.start();
      await checkApart();
    },
    refuseWhenFull: roomCheck({ store: live, reserveBytes: config.file.reserveBytes, clock }),
    put: (name, bytes) => live.put(name, bytes),
    // In the order in which it would move: a move at this moment leaves at most an orphan, which is swept.
    async delete(name) {
      await live.delete(name);
      await archive.delete(name);
    },
    readFrom: (name, offset, signal) => downloads.from(name, offset, signal),
    async link(name) {
      const { linkTtlMs } = config.s3;
      return (await live.link(name, linkTtlMs)) ?? (await archive.link(name, linkTtlMs));
    },
    sweep: (options) => sweep(places, { orphanAfterMs, archiveAfterMs, wallNow }, options),
    close() {
      live.close();
      archive.close();
    },
  };
}

interface NewPlaces extends Places {
  /** That one is not the other, or in it; once both have started. */
  readonly checkApart: () => Promise<void>;
}

async function placesOf({ config, clock, wallNow }: BlobsOptions): Promise<NewPlaces> {
  const { kind, file, s3 } = config;
  if (kind === 'file') {
    const archiveDir = file.archiveDir ?? path.join(file.dir, '.archive');
    const live = new FileStore({ dir: file.dir, setting: 'DMESH_JOBS_STORE_DIR', wallNow });
    const archive = new FileStore({ dir: archiveDir, setting: 'DMESH_JOBS_STORE_ARCHIVE_DIR', wallNow });
    return { live, archive, checkApart: () => live.checkApart(archive) };
  }
  // The SDK is half a second and 20 MB that a folder does not need.
  const { S3Store } = await import('./s3-store.js');
  const { endpoint, region, bucket = '', timeoutMs, addressing } = s3;
  const pathStyle = addressing === 'path' || (addressing === 'auto' && endpoint !== undefined);
  const common = { endpoint, region, bucket, pathStyle, timeoutMs, clock };
  return {
    live: new S3Store({ ...common, prefix: s3.prefix, storageClass: 'STANDARD' }),
    archive: new S3Store({ ...common, prefix: s3.archivePrefix, storageClass: s3.archiveClass }),
    checkApart: async () => {}, // by their prefixes, when the settings were read
  };
}

/** The archive is looked into also where nothing moves there any more. One good copy is enough. */
async function readEither({ live, archive }: Places, name: string): Promise<Uint8Array> {
  try {
    return await live.read(name);
  } catch (error) {
    if (StatusError.from(error).code !== Code.DATA_LOSS) throw error;
    return archive.read(name).catch((second: unknown) => {
      throw StatusError.from(second).reason === Reason.RESULT_MISSING ? error : second;
    });
  }
}
