/**
 * The few bytes of an answer a router reads or adds. Pictures are never decoded: an answer is
 * forwarded as the bytes that came. Protobuf lets a later scalar field override an earlier one, so
 * the router's own figures are simply appended.
 *
 * Field numbers are those of GenerateResponse and GenerateEvent in generation.proto.
 */
import { generation } from '#contracts';
import type { Pieces } from '#grpc';

const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;
const EXECUTING_MS_FIELD = 5;

/** GenerateResponse.executing_ms of a serialised answer; undefined when it is not there. */
export function readExecutingMs(response: Pieces): number | undefined {
  const reader = new PieceReader(response);
  let found: number | undefined;
  while (!reader.atEnd) {
    const tag = reader.varint();
    switch (tag & 7) {
      case WIRE.varint:
        reader.varint();
        break;
      case WIRE.fixed64:
        if (tag >>> 3 === EXECUTING_MS_FIELD) found = reader.double() ?? found;
        else reader.skip(8);
        break;
      case WIRE.bytes:
        reader.skip(reader.varint());
        break;
      case WIRE.fixed32:
        reader.skip(4);
        break;
      default:
        return found; // not protobuf as we know it; its reader will say so
    }
  }
  return found;
}

/** The same answer with the router's own figures. */
export function appendRouterFigures(response: Pieces, figures: { queuedMs: number; attempts: number }): Pieces {
  return response.followedBy(generation.GenerateResponse.encode(generation.GenerateResponse.fromPartial(figures)).finish());
}

export type EventKind = 'accepted' | 'queued' | 'started' | 'step' | 'image' | 'completed' | 'unknown';

const EVENT_KINDS: Readonly<Record<number, EventKind>> = {
  1: 'accepted',
  2: 'queued',
  3: 'started',
  4: 'step',
  5: 'image',
  6: 'completed',
};

/** Which arm of the oneof a serialised GenerateEvent holds: the first byte says it. */
export function eventKind(event: Pieces): EventKind {
  return EVENT_KINDS[(event.pieces[0]?.[0] ?? 0) >>> 3] ?? 'unknown';
}

/** Reads a message where it lies and steps over what is not of interest. */
class PieceReader {
  readonly #pieces: readonly Uint8Array[];
  #index = 0;
  #at = 0;

  constructor(message: Pieces) {
    this.#pieces = message.pieces;
  }

  get atEnd(): boolean {
    this.#settle();
    return this.#index >= this.#pieces.length;
  }

  varint(): number {
    let value = 0;
    for (let scale = 1; !this.atEnd; scale *= 128) {
      const byte = this.#byte();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) break;
    }
    return value;
  }

  /** Undefined when the message ends before it. */
  double(): number | undefined {
    const bytes = new DataView(new ArrayBuffer(8));
    for (let i = 0; i < 8; i++) {
      if (this.atEnd) return undefined;
      bytes.setUint8(i, this.#byte());
    }
    return bytes.getFloat64(0, true);
  }

  skip(count: number): void {
    this.#at += count;
  }

  #byte(): number {
    return this.#pieces[this.#index]?.[this.#at++] ?? 0;
  }

  /** Moves to the piece in which the position lies. */
  #settle(): void {
    for (let piece = this.#pieces[this.#index]; piece && this.#at >= piece.length; piece = this.#pieces[++this.#index]) {
      this.#at -= piece.length;
    }
  }
}
