import { expect, test } from 'vitest';
import { generation } from '#contracts';
import { Code, Reason } from '#core';
import { ImageAssembler } from './assemble.js';

function chunk(fields: { text: string; offset: number; total: number; index?: number }) {
  return generation.ImageChunk.fromPartial({
    imageIndex: fields.index ?? 0,
    data: Buffer.from(fields.text),
    offset: BigInt(fields.offset),
    totalBytes: BigInt(fields.total),
    mimeType: 'image/png',
    width: 128,
    height: 64,
    seed: 7n,
  });
}
const textOf = (data: Uint8Array) => Buffer.from(data).toString();

test('chunks become a picture', () => {
  const assembler = new ImageAssembler();
  expect(assembler.add(chunk({ text: 'abc', offset: 0, total: 5 }))).toBe(3);
  expect(assembler.add(chunk({ text: 'de', offset: 3, total: 5 }))).toBe(5);
  const [image] = assembler.finish(1);
  expect(image).toMatchObject({ mimeType: 'image/png', width: 128, height: 64, seed: 7n });
  expect(textOf(image?.data ?? new Uint8Array())).toBe('abcde');
});

test('pictures come in order of their index, however their chunks interleave', () => {
  const assembler = new ImageAssembler();
  assembler.add(chunk({ text: 'B', offset: 0, total: 2, index: 1 }));
  assembler.add(chunk({ text: 'A', offset: 0, total: 1, index: 0 }));
  assembler.add(chunk({ text: 'b', offset: 1, total: 2, index: 1 }));
  expect(assembler.finish(2).map((image) => textOf(image.data))).toEqual(['A', 'Bb']);
});

test('a higher attempt voids what the lost node had sent', () => {
  const assembler = new ImageAssembler();
  assembler.started(1);
  assembler.add(chunk({ text: 'lost', offset: 0, total: 9 }));
  assembler.started(2);
  assembler.add(chunk({ text: 'new', offset: 0, total: 3 }));
  expect(assembler.finish(1).map((image) => textOf(image.data))).toEqual(['new']);
});

test.each([
  ['a gap', () => [chunk({ text: 'abc', offset: 0, total: 9 }), chunk({ text: 'x', offset: 4, total: 9 })]],
  ['a repeat', () => [chunk({ text: 'abc', offset: 0, total: 9 }), chunk({ text: 'abc', offset: 0, total: 9 })]],
  ['more than promised', () => [chunk({ text: 'abc', offset: 0, total: 2 })]],
  ['a total that changes', () => [chunk({ text: 'abc', offset: 0, total: 9 }), chunk({ text: 'def', offset: 3, total: 8 })]],
  ['a total of nothing', () => [chunk({ text: '', offset: 0, total: 0 })]],
  ['a total no memory has', () => [chunk({ text: 'a', offset: 0, total: 2 ** 40 })]],
  ['an end too early', () => [chunk({ text: 'abc', offset: 0, total: 9 })]],
  ['no picture at all', () => []],
])('%s is DATA_LOSS', (_, chunks) => {
  const assembler = new ImageAssembler();
  const assemble = () => {
    for (const one of chunks()) assembler.add(one);
    assembler.finish(1);
  };
  expect(assemble).toThrowError(expect.objectContaining({ code: Code.DATA_LOSS, reason: Reason.BAD_STREAM }));
});
