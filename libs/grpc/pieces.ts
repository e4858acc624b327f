/**
 * How do megabytes leave without being copied again and again? Protobuf lets a message be put
 * together from separately serialised parts. A unary answer's pieces leave as they are
 * (write-pieces.ts); those of a stream's messages are copied once, into the frame that grpc-js (1.14)
 * sends. Generated code needs five copies for the same: into its buffer, behind its length, out of the
 * buffer, into a Buffer, into the frame.
 *
 * Not worth it for messages of a few kilobytes.
 */

const LENGTH_DELIMITED = 2;

/** A serialised message that is not in one place. grpc-js asks it for byteLength and copy() only. */
export class Pieces {
  readonly byteLength: number;

  /** The bytes are not copied now: they must stay as they are until the message has been sent. */
  constructor(readonly pieces: readonly Uint8Array[]) {
    this.byteLength = sizeOf(pieces);
  }

  copy(target: Uint8Array, targetStart = 0): number {
    let at = targetStart;
    for (const piece of this.pieces) {
      target.set(piece, at);
      at += piece.length;
    }
    return this.byteLength;
  }

  /** The same with more behind it; nothing is copied. */
  followedBy(more: Uint8Array): Pieces {
    return new Pieces([...this.pieces, more]);
  }

  /** In one place after all; for small messages. */
  toBuffer(): Buffer {
    return Buffer.concat(this.pieces);
  }
}

/** A bytes field or an embedded message: its tag and length, then its content. */
export function lengthDelimited(field: number, content: readonly Uint8Array[]): Uint8Array[] {
  return [varints(field * 8 + LENGTH_DELIMITED, sizeOf(content)), ...content];
}

function sizeOf(pieces: readonly Uint8Array[]): number {
  return pieces.reduce((sum, piece) => sum + piece.length, 0);
}

/** Numbers below 2^31, as protobuf's base 128. */
function varints(...values: readonly number[]): Uint8Array {
  const bytes: number[] = [];
  for (let rest of values) {
    for (; rest >= 0x80; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
    bytes.push(rest);
  }
  return Uint8Array.from(bytes);
}
