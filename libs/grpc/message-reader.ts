/** gRPC's framing: messages out of the chunks of a stream, without copying them, and one message into a frame. */
import { Code, Reason, StatusError } from '#core';
import { Pieces } from './pieces.js';

/** A flag (1: compressed) and four bytes of length stand before each message. */
const HEADER_BYTES = 5;

/** Hands on each message as soon as all of it is there; chunks end wherever the network ended them. */
export function messageReader(maxBytes: number, deliver: (message: Pieces) => void) {
  let headerCount = 0;
  let missing = 0;
  let pieces: Uint8Array[] = [];
  const deliverWhole = () => {
    if (headerCount < HEADER_BYTES || missing > 0) return;
    const message = new Pieces(pieces);
    headerCount = 0;
    pieces = [];
    deliver(message);
  };
  /** One byte of the header; returns what is wrong with it. */
  const readHeader = (byte: number): StatusError | undefined => {
    if (headerCount++ > 0) missing = missing * 256 + byte;
    else if (byte === 1) return badStream('expected plain messages, got a compressed one');
    else if (byte !== 0) return badStream(`expected a gRPC message, got one that begins with ${byte}`);
    if (headerCount < HEADER_BYTES || missing <= maxBytes) return undefined;
    return new StatusError({
      code: Code.RESOURCE_EXHAUSTED,
      reason: Reason.MESSAGE_TOO_LARGE,
      message: `expected messages of at most ${maxBytes} bytes, got one of ${missing}`,
    });
  };
  return {
    /** Nothing is left of a message. */
    get complete(): boolean {
      return headerCount === 0;
    },
    push(chunk: Uint8Array): StatusError | undefined {
      for (let at = 0; at < chunk.length; deliverWhole()) {
        if (headerCount < HEADER_BYTES) {
          const fault = readHeader(chunk[at++] ?? 0);
          if (fault) return fault;
        } else {
          // Nearly every chunk lies within one message.
          const piece = at === 0 && missing >= chunk.length ? chunk : chunk.subarray(at, at + missing);
          pieces.push(piece);
          missing -= piece.length;
          at += piece.length;
        }
      }
      return undefined;
    },
  };
}

export function framed(request: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(HEADER_BYTES + request.length);
  frame.writeUInt8(0, 0);
  frame.writeUInt32BE(request.length, 1);
  frame.set(request, HEADER_BYTES);
  return frame;
}

/** The peer broke gRPC's own rules. */
export function badStream(message: string): StatusError {
  return new StatusError({ code: Code.INTERNAL, reason: Reason.BAD_STREAM, message });
}
