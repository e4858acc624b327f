/**
 * The pictures of durable jobs, as the rest of the service sees them: kept, dropped, read in pieces, looked after.
 * Which place they are in (live or archive, a folder or a bucket) is nobody's business beyond this folder.
 */
import type { BlobPiece } from './download.js';
import type { SweepFigures, SweepOptions } from './sweep.js';

export interface Blobs {
  /** Rejects with a ConfigError where the store cannot be used as it is set up. */
  start(): Promise<void>;
  /** Before a job is taken in: rejects with STORE_FULL when `promisedBytes` (all that jobs not yet drawn may come to) would go into the reserve. */
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
  /** Where anybody may fetch it for a while; undefined where the store has no such thing. */
  link(name: string): Promise<string | undefined>;
  /** One round of housekeeping; to be called every `sweepEveryMs`. */
  sweep(options: SweepOptions): Promise<SweepFigures>;
  close(): void;
}
