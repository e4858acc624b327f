/**
 * The HTTP/2 stream under a call that grpc-js serves. It is not public in grpc-js (1.14), and two things
 * need it: sending without copies (write-pieces.ts) and cutting a caller who does not read. Where it is
 * not found both do without; write-pieces.test.ts tells when a new version hides it. Decision 0007.
 */
import { constants, type ServerHttp2Stream } from 'node:http2';
import { Writable } from 'node:stream';

/** Undefined also when the caller has left. */
export function http2StreamOf(call: object): ServerHttp2Stream | undefined {
  const inner = 'call' in call ? call.call : undefined;
  const stream = typeof inner === 'object' && inner !== null && 'stream' in inner ? inner.stream : undefined;
  return stream instanceof Writable && 'sendTrailers' in stream && stream.writable ? (stream as ServerHttp2Stream) : undefined;
}

/** Ends the stream when nothing more of it has left for `ms`: its status lies behind data that nobody reads. */
export function cutWhenStuck(call: object, ms: number): void {
  const stream = http2StreamOf(call);
  stream?.setTimeout(ms, () => stream.close(constants.NGHTTP2_CANCEL));
}
