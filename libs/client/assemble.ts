/**
 * Pictures from the chunks of a stream. A `started` with a higher attempt voids what came before:
 * the node that sent it is lost and another begins anew. Chunks that do not fit are DATA_LOSS, never
 * a picture with a hole.
 */
import type { generation } from '#contracts';
import { Code, Reason, StatusError } from '#core';

export interface MeshImage {
  /** A complete file of `mimeType`. */
  readonly data: Uint8Array;
  readonly mimeType: string;
  readonly width: number;
  readonly height: number;
  readonly seed: bigint;
}

interface Partial {
  readonly first: generation.ImageChunk;
  readonly data: Uint8Array;
  receivedBytes: number;
}

/** As the largest answer a channel takes; a peer's number alone must not reserve more. */
const MAX_IMAGE_BYTES = 64 * 1024 * 1024;

export class ImageAssembler {
  readonly #images = new Map<number, Partial>();
  #attempt = 0;

  started(attempt: number): void {
    if (attempt > this.#attempt) this.#images.clear();
    this.#attempt = Math.max(this.#attempt, attempt);
  }

  /** Returns the bytes received of this picture so far. */
  add(chunk: generation.ImageChunk): number {
    const index = chunk.imageIndex;
    const total = Number(chunk.totalBytes);
    if (total <= 0 || total > MAX_IMAGE_BYTES)
      throw badStream(`expected picture ${index} to have 1 to ${MAX_IMAGE_BYTES} bytes, got ${total}`);
    const image = this.#images.get(index) ?? { first: chunk, data: new Uint8Array(total), receivedBytes: 0 };
    this.#images.set(index, image);
    if (total !== image.data.length) throw badStream(`expected picture ${index} to stay at ${image.data.length} bytes, got ${total}`);
    if (Number(chunk.offset) !== image.receivedBytes) {
      throw badStream(`expected picture ${index} to go on at byte ${image.receivedBytes}, got a chunk for byte ${chunk.offset}`);
    }
    if (image.receivedBytes + chunk.data.length > total) {
      throw badStream(`expected picture ${index} to end at byte ${total}, got ${image.receivedBytes + chunk.data.length}`);
    }
    image.data.set(chunk.data, image.receivedBytes);
    image.receivedBytes += chunk.data.length;
    return image.receivedBytes;
  }

  /** The pictures in order of their index, all `count` of them complete. */
  finish(count: number): MeshImage[] {
    if (this.#images.size !== count) throw badStream(`expected ${count} pictures, got ${this.#images.size}`);
    return Array.from({ length: count }, (_, index) => {
      const image = this.#images.get(index);
      if (image?.receivedBytes !== image?.data.length || !image) {
        throw badStream(`expected all of picture ${index}, got ${image?.receivedBytes ?? 0} of ${image?.data.length ?? 'unknown'} bytes`);
      }
      const { mimeType, width, height, seed } = image.first;
      return { data: image.data, mimeType, width, height, seed };
    });
  }
}

function badStream(message: string): StatusError {
  return new StatusError({ code: Code.DATA_LOSS, reason: Reason.BAD_STREAM, message });
}
