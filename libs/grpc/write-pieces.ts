/**
 * How do Pieces leave without being copied at all? grpc-js (1.14) copies every message into one buffer
 * behind its header, and at 1.5 MB that buffer is most of what sending costs: fresh memory, page by page,
 * and garbage that V8 must find again. Here a unary answer's pieces go to the HTTP/2 stream as they are.
 *
 * Where that stream is not found, the answer is false, nothing has happened and the caller lets grpc-js copy.
 */
import { Metadata, type ServerUnaryCall } from '@grpc/grpc-js';
import { http2StreamOf } from './http2-stream.js';
import type { Pieces } from './pieces.js';

const HEADER_BYTES = 5;

/** Writes the only message of an answer; its status is still to be sent. */
export function writePieces(call: Pick<ServerUnaryCall<unknown, unknown>, 'sendMetadata'>, message: Pieces): boolean {
  const stream = http2StreamOf(call);
  if (!stream) return false;
  call.sendMetadata(new Metadata());
  const header = Buffer.alloc(HEADER_BYTES); // not compressed, length
  header.writeUInt32BE(message.byteLength, 1);
  // Corked: Node hands all of it to nghttp2 at once.
  stream.cork();
  stream.write(header);
  for (const piece of message.pieces) stream.write(piece);
  stream.uncork();
  return true;
}
