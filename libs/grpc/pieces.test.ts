import { expect, test } from 'vitest';
import { generation } from '#contracts';
import { systemClock } from '#runtime';
import { Channel } from './channel.js';
import { lengthDelimited, Pieces } from './pieces.js';
import { Server } from './server.js';

const { GenerateResponse, Image, ImageGenerationServiceService: Service } = generation;
const data = Uint8Array.from({ length: 300_000 }, (_, i) => i % 251);
const image = { mimeType: 'image/png', width: 64, height: 32, seed: 2n ** 63n };
const response = GenerateResponse.fromPartial({ images: [{ ...image, data }], requestId: 'r', attempts: 2 });
const inPieces = () => {
  const rest = Image.encode(Image.fromPartial(image)).finish();
  const picture = lengthDelimited(1, [...lengthDelimited(1, [data]), rest]);
  return new Pieces([...picture, GenerateResponse.encode({ ...response, images: [] }).finish()]);
};

test('lengthDelimited() writes what generated code writes', () => {
  for (const length of [0, 1, 127, 128, 16_383, 16_384, 300_000]) {
    const bytes = data.subarray(0, length);
    // Generated code leaves an empty field out; being there and empty means the same.
    expect(Image.decode(new Pieces(lengthDelimited(1, [bytes])).toBuffer()).data).toHaveLength(length);
    const generated = Image.encode(Image.fromPartial({ data: bytes })).finish();
    if (length > 0) expect(Buffer.compare(new Pieces(lengthDelimited(1, [bytes])).toBuffer(), generated)).toBe(0);
  }
});

test('a message in pieces reads like the message in one', () => {
  const read = GenerateResponse.decode(inPieces().toBuffer());
  expect(Buffer.compare(GenerateResponse.encode(read).finish(), GenerateResponse.encode(response).finish())).toBe(0);
});

test('copy() puts the pieces where it is told and nowhere else', () => {
  const target = Buffer.alloc(7, 9);
  expect(new Pieces([Uint8Array.of(1, 2), Uint8Array.of(3)]).copy(target, 2)).toBe(3);
  expect([...target]).toEqual([9, 9, 1, 2, 3, 9, 9]);
});

test('a server sends pieces as one message', async () => {
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1000 });
  server.add(Service, {
    generate: async () => inPieces(),
    generateStream: async () => {},
    listModels: async () => ({ models: [] }),
  });
  const channel = new Channel(`127.0.0.1:${await server.listen('127.0.0.1:0')}`, { clock: systemClock });
  try {
    const { response: read } = await channel.unary(Service.generate, generation.GenerateRequest.fromPartial({}));
    expect(Buffer.compare(Buffer.from(read.images[0]?.data ?? []), Buffer.from(data))).toBe(0);
    expect(read).toMatchObject({ requestId: 'r', attempts: 2 });
  } finally {
    channel.close();
    await server.close();
  }
});
