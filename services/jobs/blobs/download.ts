/**
 * A picture in pieces, from an offset, so that a broken download goes on where it broke. The whole of it is read and
 * checked before the first piece leaves: nobody gets a byte that was not drawn. So each download holds one picture in
 * memory until its reader has it all; only so many do at a time, the others wait in line.
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

const PIECE_BYTES = 256 * 1024;

export class Downloads {
  readonly #options: DownloadsOptions;
  #heldCount = 0;
  readonly #waiting = new Set<() => void>();

  constructor(options: DownloadsOptions) {
    this.#options = options;
  }

  async *from(name: string, offset: number, signal: AbortSignal): AsyncIterable<BlobPiece> {
    await this.#hold(signal);
    try {
      const bytes = await this.#options.read(name);
      const totalBytes = bytes.byteLength;
      if (offset > totalBytes) throw pastTheEnd(offset, totalBytes);
      for (let at = offset; at === offset || at < totalBytes; at += PIECE_BYTES) {
        signal.throwIfAborted();
        yield { data: bytes.subarray(at, at + PIECE_BYTES), offset: at, totalBytes };
      }
    } finally {
      this.#release();
    }
  }

  async #hold(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#heldCount < this.#options.maxCount) {
      this.#heldCount++;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const onAbort = () => {
        this.#waiting.delete(next);
        reject(signal.reason);
      };
      const next = () => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      this.#waiting.add(next);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** The place goes to whoever has waited longest. */
  #release(): void {
    const [next] = this.#waiting;
    if (next === undefined) this.#heldCount--;
    else {
      this.#waiting.delete(next);
      next();
    }
  }
}

function pastTheEnd(offset: number, totalBytes: number): StatusError {
  const { message, details } = badRequest([{ field: 'offset', description: `expected at most ${totalBytes}, got ${offset}` }]);
  return new StatusError({ code: Code.OUT_OF_RANGE, reason: Reason.BAD_REQUEST, message, ...details });
}
