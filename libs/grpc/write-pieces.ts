/**
 * How do Pieces leave without being copied at all? grpc-js (1.14) copies every message into one buffer
 * behind its header, and at 1.5 MB that buffer is most of what sending costs: fresh memory, page by page,
 * and garbage that V8 must find again. Here a unary answer's pieces go to the HTTP/2 stream as they are.
 *
 * The stream is not public in grpc-js. Where it is not found, the answer is false, nothing has happened
 * and the caller lets grpc-js copy; write-pieces.test.ts tells when a new version hides it. Decision 0007.
 */
import type { ServerHttp2Stream } from 'node:http2';
import { Writable } from 'node:stream';
import { Metadata, type ServerUnaryCall } from '@grpc/grpc-js';
import type { Pieces } from './pieces.js';

const HEADER_BYTES = 5;

/** Writes the only message of an answer; its status is still to be sent. */
export function writePieces(call: Pick<ServerUnaryCall<unknown, unknown>, 'sendMetadata'>, message: Pieces): boolean {
  const stream = streamOf(call);
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

/** Undefined also when the caller has left. */
function streamOf(call: object): ServerHttp2Stream | undefined {
  const inner = 'call' in call ? call.call : undefined;
  const stream = typeof inner === 'object' && inner !== null && 'stream' in inner ? inner.stream : undefined;
  return stream instanceof Writable && 'sendTrailers' in stream && stream.writable ? (stream as ServerHttp2Stream) : undefined;
}
