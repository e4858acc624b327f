import { expect, test } from 'vitest';
import { generation } from '#contracts';
import { Pieces } from '#grpc';
import { appendRouterFigures, eventKind, readExecutingMs } from './wire.js';

const { GenerateEvent, GenerateResponse } = generation;
/** In pieces of `size` bytes, as a network would cut it. */
const cut = (bytes: Uint8Array, size = Number.POSITIVE_INFINITY) => {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.subarray(at, at + size));
  return new Pieces(pieces);
};
const bytesOf = (response: generation.GenerateResponse) => cut(GenerateResponse.encode(response).finish());
const picture = { data: Buffer.alloc(300_000, 7), mimeType: 'image/png', width: 128, height: 128, seed: 2n ** 60n };

test('the engine time is found behind the pictures', () => {
  const bytes = bytesOf(GenerateResponse.fromPartial({ images: [picture, picture], requestId: 'r', executingMs: 91.5 }));
  expect(readExecutingMs(bytes)).toBe(91.5);
});

test.each([1, 2, 7, 16_384, 299_999])('wherever an answer is cut, here every %i bytes, it is read the same', (size) => {
  const response = GenerateResponse.fromPartial({ images: [picture], requestId: 'r', executingMs: 91.5, attempts: 3 });
  const pieces = cut(GenerateResponse.encode(response).finish(), size);
  expect(readExecutingMs(pieces)).toBe(91.5);
  expect(GenerateResponse.decode(appendRouterFigures(pieces, { queuedMs: 1, attempts: 4 }).toBuffer())).toMatchObject({
    executingMs: 91.5,
    attempts: 4,
  });
});

test('an answer without it, or no answer at all, has none', () => {
  expect(readExecutingMs(bytesOf(GenerateResponse.fromPartial({ requestId: 'r' })))).toBeUndefined();
  expect(readExecutingMs(cut(Buffer.from([0xff, 0xff, 0xff, 0xff])))).toBeUndefined();
});

test('appended figures are what a reader sees', () => {
  const bytes = bytesOf(GenerateResponse.fromPartial({ images: [picture], nodeId: 'n', attempts: 1, queuedMs: 3 }));
  const read = GenerateResponse.decode(appendRouterFigures(bytes, { queuedMs: 12.5, attempts: 2 }).toBuffer());
  expect(read).toMatchObject({ nodeId: 'n', queuedMs: 12.5, attempts: 2 });
  expect(read.images[0]?.data.length).toBe(300_000);
});

test.each([
  ['accepted', { requestId: 'r', seed: 1n, etaMs: 1 }],
  ['queued', { position: 1, etaMs: 1 }],
  ['started', { nodeId: 'n', attempt: 1 }],
  ['step', { step: 1, total: 8, imageIndex: 0 }],
  ['image', { data: Buffer.alloc(10) }],
  ['completed', { requestId: 'r' }],
] as const)('a %s event is told by its first byte', ($case, value) => {
  const event = GenerateEvent.fromPartial({ event: { $case, value } as never });
  expect(eventKind(cut(GenerateEvent.encode(event).finish()))).toBe($case);
});

test('an empty event is unknown', () => expect(eventKind(cut(Buffer.alloc(0)))).toBe('unknown'));
