import { expect, test } from 'vitest';
import { generation } from '#contracts';
import { answerInPieces } from './answer.js';

const { GenerateResponse } = generation;
const image = { data: Uint8Array.from({ length: 1000 }, (_, i) => i % 256), mimeType: 'image/webp', width: 64, height: 96, seed: 5n };
const used = { model: 'm', revision: '1', width: 64, height: 96, steps: 8, seed: 5n, loras: [{ name: 'neon', strength: 0.5 }] };

test.each([
  ['no picture', []],
  ['one picture', [image]],
  ['several pictures, one of them empty', [image, { ...image, data: new Uint8Array(0), seed: 6n }, { ...image, mimeType: '' }]],
])('answerInPieces() of %s reads like the answer', (_, images) => {
  const response = GenerateResponse.fromPartial({ images, used, requestId: 'r', nodeId: 'n', executingMs: 91.5, queuedMs: 2, attempts: 1 });
  const read = GenerateResponse.decode(answerInPieces(response).toBuffer());
  expect(GenerateResponse.toJSON(read)).toEqual(GenerateResponse.toJSON(response));
});
