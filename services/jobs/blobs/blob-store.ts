/**
 * What is asked of a place where pictures are kept. A folder (file-store.ts) and a bucket (s3-store.ts) are such
 * places; test/contract/blob-store-conformance.ts says what any must do. Names are those of blob-name.ts.
 *
 * Every method may reject with UNAVAILABLE/STORE_UNAVAILABLE: the place does not answer, or refuses; what was
 * asked for may have happened, and may be asked for again.
 */
import { type BlobParts, parseBlobName, sha256Of } from './blob-name.js';
import { resultDamaged } from './status.js';

export interface BlobStore {
  /** Makes sure that pictures can be kept there. Rejects with a ConfigError where a setting is wrong. */
  start(): Promise<void>;
  /**
   * Resolves when the bytes outlive a loss of power; until then nothing of them is seen. The same name again is
   * the same picture. Rejects with RESOURCE_EXHAUSTED/STORE_FULL where there is no room.
   */
  put(name: string, bytes: Uint8Array): Promise<void>;
  /** The whole picture. DATA_LOSS: RESULT_MISSING, or RESULT_DAMAGED when its digest is not the one in its name. */
  read(name: string): Promise<Uint8Array>;
  /** It is fine when there is none. */
  delete(name: string): Promise<void>;
  /** All pictures in no order, a page at a time; what comes or goes meanwhile may be in it or not. */
  list(): AsyncIterable<readonly ListedBlob[]>;
  /** Removes what a put that never ended has left behind, when it is older than `ageMs`; tells how many. */
  sweepTemporary(ageMs: number): Promise<number>;
  /** Undefined: not known, such as in a bucket. */
  freeBytes(): Promise<number | undefined>;
  /** Where anybody may fetch it for so long; undefined: this kind of place has none, or no such picture. */
  link(name: string, validForMs: number): Promise<string | undefined>;
  close(): void;
}

export interface ListedBlob {
  readonly name: string;
  readonly parts: BlobParts;
  readonly sizeBytes: number;
  /** Wall clock of the place. */
  readonly storedAtMs: number;
}

/** The parts of a name that is one. Anything else is a fault in the caller, and never becomes a path. */
export function partsOf(name: string): BlobParts {
  const parts = parseBlobName(name);
  if (parts === undefined) throw new Error(`expected the name of a picture, got ${JSON.stringify(name)}`);
  return parts;
}

/** The bytes, when they are what the name says. */
export function checked(name: string, bytes: Uint8Array): Uint8Array {
  if (sha256Of(bytes) !== partsOf(name).sha256) throw resultDamaged(name, bytes.byteLength);
  return bytes;
}
