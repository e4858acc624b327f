import { connect } from 'node:http2';
import type { ServerUnaryCall } from '@grpc/grpc-js';
import { afterEach, expect, test } from 'vitest';
import { generation } from '#contracts';
import { systemClock } from '#runtime';
import { Channel } from './channel.js';
import { Pieces } from './pieces.js';
import { Server } from './server.js';
import { writePieces } from './write-pieces.js';

const Service = generation.ImageGenerationServiceService;
const request = generation.GenerateRequest.fromPartial({ prompt: 'a red circle' });
const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

class UncopiedPieces extends Pieces {
  override copy(): number {
    throw new Error('expected grpc-js to copy nothing');
  }
}

async function serve(generate: () => Promise<Pieces>) {
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20 });
  const none = () => Promise.reject(new Error('not part of this test'));
  server.add(Service, { generate, generateStream: none, listModels: none });
  const port = await server.listen('127.0.0.1:0');
  const channel = new Channel(`127.0.0.1:${port}`, { clock: systemClock });
  cleanups.push(
    () => server.close(),
    () => channel.close(),
  );
  return { port, channel };
}

const parts = Array.from({ length: 100 }, (_, i) => Buffer.alloc(16_000 + i, i));
const message = generation.Image.encode(generation.Image.fromPartial({ data: Buffer.concat(parts) })).finish();
const response = generation.GenerateResponse.encode(generation.GenerateResponse.fromPartial({ requestId: 'r' })).finish();

test('the HTTP/2 stream of this grpc-js is found, and nothing is copied', async () => {
  const { channel } = await serve(async () => new UncopiedPieces([response]));
  expect((await channel.unary(Service.generate, request)).response.requestId).toBe('r');
});

test('many pieces arrive as one message, also at a peer with a small window', async () => {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < message.length; at += 9999) pieces.push(message.subarray(at, at + 9999));
  const { port } = await serve(async () => new UncopiedPieces(pieces));
  const session = connect(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: 5000 } });
  cleanups.push(() => session.destroy());
  const stream = session.request({ ':method': 'POST', ':path': Service.generate.path, 'content-type': 'application/grpc', te: 'trailers' });
  stream.end(Buffer.alloc(5));
  let status: unknown;
  stream.on('trailers', (trailers) => {
    status = trailers['grpc-status'];
  });
  const received = Buffer.concat(await stream.toArray());
  expect(received.readUInt32BE(1)).toBe(message.length);
  expect(received.subarray(5).equals(message)).toBe(true);
  expect(Number(status)).toBe(0);
});

test('where the stream is not found, nothing is written', () => {
  const call = { sendMetadata: () => expect.unreachable() } as Pick<ServerUnaryCall<unknown, unknown>, 'sendMetadata'>;
  expect(writePieces(call, new Pieces([response]))).toBe(false);
  expect(writePieces({ ...call, ...{ call: { stream: {} } } }, new Pieces([response]))).toBe(false);
});
