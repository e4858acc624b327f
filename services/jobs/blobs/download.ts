/**
 * A picture in pieces, from an offset, so that a broken download goes on where it broke. The whole of it is read and
 * checked before the first piece leaves: nobody gets a byte that was not drawn. So each download holds one picture in
 * memory until its reader has it all; only so many do at a time, the others wait in line. Readers of one tenant take
 * half of these places at most: however slow they are, others are served.
 */
import { badRequest, Code, Reason, StatusError } from '#core';

export interface BlobPiece {
  /** At most 256 KiB. */
  readonly data: Uint8Array;
  readonly offset: number;
  readonly totalBytes: number;
}

export interface DownloadsOptions {
  readonly read: (name: string) => Promise<Uint8Array>;
  /** Pictures in memory at once. */
  readonly maxCount: number;
}

interface Waiting {
  readonly tenant: string;
  readonly go: () => void;
}

const PIECE_BYTES = 256 * 1024;
const TENANT_RATIO = 0.5;

export class Downloads {
  readonly #options: DownloadsOptions;
  readonly #maxOfTenant: number;
  #heldCount = 0;
  readonly #heldCounts = new Map<string, number>();
  readonly #waiting = new Set<Waiting>();

  constructor(options: DownloadsOptions) {
    this.#options = options;
    this.#maxOfTenant = Math.ceil(options.maxCount * TENANT_RATIO);
  }

  async *from(name: string, offset: number, signal: AbortSignal): AsyncIterable<BlobPiece> {
    const tenant = name.slice(0, Math.max(0, name.indexOf('/'))); // blob-name.ts
    await this.#hold(tenant, signal);
    try {
      const bytes = await this.#options.read(name);
      const totalBytes = bytes.byteLength;
      if (offset > totalBytes) throw pastTheEnd(offset, totalBytes);
      for (let at = offset; at === offset || at < totalBytes; at += PIECE_BYTES) {
        signal.throwIfAborted();
        yield { data: bytes.subarray(at, at + PIECE_BYTES), offset: at, totalBytes };
      }
    } finally {
      this.#release(tenant);
    }
  }

  async #hold(tenant: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#hasPlace(tenant)) return this.#add(tenant, 1);
    await new Promise<void>((resolve, reject) => {
      const onAbort = () => {
        this.#waiting.delete(waiting);
        reject(signal.reason);
      };
      const go = () => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      const waiting = { tenant, go };
      this.#waiting.add(waiting);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** The place goes to whoever has waited longest, of those who may have one. */
  #release(tenant: string): void {
    this.#add(tenant, -1);
    for (const next of this.#waiting) {
      if (!this.#hasPlace(next.tenant)) continue;
      this.#waiting.delete(next);
      this.#add(next.tenant, 1);
      return next.go();
    }
  }

  #hasPlace(tenant: string): boolean {
    return this.#heldCount < this.#options.maxCount && (this.#heldCounts.get(tenant) ?? 0) < this.#maxOfTenant;
  }

  #add(tenant: string, count: number): void {
    this.#heldCount += count;
    const ofTenant = (this.#heldCounts.get(tenant) ?? 0) + count;
    if (ofTenant === 0) this.#heldCounts.delete(tenant);
    else this.#heldCounts.set(tenant, ofTenant);
  }
}

function pastTheEnd(offset: number, totalBytes: number): StatusError {
  const { message, details } = badRequest([{ field: 'offset', description: `expected at most ${totalBytes}, got ${offset}` }]);
  return new StatusError({ code: Code.OUT_OF_RANGE, reason: Reason.BAD_REQUEST, message, ...details });
}
