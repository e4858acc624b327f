import { connect } from 'node:http2';
import { afterEach, expect, test } from 'vitest';
import { generation } from '#contracts';
import { Code, Reason } from '#core';
import { systemClock } from '#runtime';
import type { HandlersOf } from './method.js';
import { Pieces } from './pieces.js';
import { type CallEnded, Server } from './server.js';

const Service = generation.ImageGenerationServiceService;
const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const data = Buffer.alloc(200_000);

/** A caller that never takes more than `initialWindowSize` bytes of an answer's body. */
async function askAndNeverRead(path: string, handlers: Partial<HandlersOf<typeof Service>>, initialWindowSize = 0) {
  const ended: CallEnded[] = [];
  const server = new Server({ clock: systemClock, emit: (event) => ended.push(event), maxRequestBytes: 1 << 20, idleReaderMs: 200 });
  const none = () => Promise.reject(new Error('not part of this test'));
  server.add(Service, { generate: none, generateStream: none, listModels: none, ...handlers } as HandlersOf<typeof Service>);
  const session = connect(`http://127.0.0.1:${await server.listen('127.0.0.1:0')}`, { settings: { initialWindowSize } });
  cleanups.push(
    () => server.close(),
    () => session.destroy(),
  );
  const stream = session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' });
  stream.on('error', () => {}); // being cut is an error for a reader, too
  const closed = new Promise<void>((resolve) => stream.on('close', resolve));
  stream.end(Buffer.alloc(5));
  stream.pause();
  return { ended, closed };
}

test('a stream nobody reads is ended with IDLE_READER and cut', async () => {
  const { ended, closed } = await askAndNeverRead(Service.generateStream.path, {
    generateStream: async (_call, out) => {
      const value = { ...generation.ImageChunk.fromPartial({ data }) };
      for (;;) await out.write({ event: { $case: 'image', value } });
    },
  });
  await closed;
  expect(ended).toMatchObject([{ code: Code.DEADLINE_EXCEEDED, reason: Reason.IDLE_READER }]);
});

const whole = generation.GenerateResponse.fromPartial({ images: [{ data }] });
const bytes = Buffer.from(generation.GenerateResponse.encode(whole).finish());

test.each([
  ['a message, and no byte of it is taken', whole, 0],
  ['a message, and one byte of it is taken', whole, 1],
  ['pieces, and no byte of them is taken', new Pieces([bytes]), 0],
  ['pieces, and one byte of them is taken', new Pieces([bytes]), 1],
])('an answer nobody reads is cut: %s', async (_, answer, window) => {
  const { ended, closed } = await askAndNeverRead(Service.generate.path, { generate: async () => answer }, window);
  await closed;
  expect(ended).toMatchObject([{ code: Code.OK }]);
});
