import { expect, test } from 'vitest';
import { generation, jobs } from '#contracts';
import { Code, Reason } from '#core';
import { asBytes, decodeRequest } from './method.js';

const Jobs = jobs.JobsServiceService;
const Generation = generation.ImageGenerationServiceService;

test('the largest batch, with every field given, is read', () => {
  const request = generation.GenerateRequest.fromPartial({
    requestId: 'r',
    prompt: 'a red circle '.repeat(100),
    negativePrompt: 'blue',
    model: 'z-image-tiny',
    width: 128,
    height: 128,
    steps: 8,
    guidanceScale: 2,
    seed: 7n,
    imageCount: 4,
    format: 1,
    priority: 2,
    loras: Array.from({ length: 8 }, (_, index) => ({ name: `lora-${index}`, strength: 0.5 })),
  });
  const batch = jobs.SubmitBatchRequest.fromPartial({ batchId: 'b', items: Array(1000).fill({ jobId: 'a-job-of-this-name', request }) });
  const read = decodeRequest(Jobs.submitBatch, Jobs.submitBatch.requestSerialize(batch));
  expect(read.items).toHaveLength(1000);
  expect(read.items[999]?.request).toEqual(request);
});

const tagOf = (fieldNo: number, wireType: number) => (fieldNo << 3) | wireType;
/** `count` empty messages: two bytes of each on the wire. */
const empties = (fieldNo: number, count: number) => Buffer.alloc(2 * count).fill(Buffer.from([tagOf(fieldNo, 2), 0]));
const tooMany = {
  code: Code.INVALID_ARGUMENT,
  reason: Reason.BAD_REQUEST,
  message: expect.stringMatching(/^expected a message of at most 100000 tags and lengths, got more in \d+ bytes$/),
};

test.each([
  ['jobs of a batch', Jobs.submitBatch, empties(2, 1_000_000)],
  ['LoRAs', Generation.generate, empties(11, 1_000_000)],
  ['fields that nobody knows', Generation.generate, empties(15, 1_000_000)],
])('of a million %s no more is read than any request needs', (_, method, bytes) => {
  expect(() => decodeRequest<unknown>(method, bytes)).toThrow(expect.objectContaining(tooMany));
});

test('packed numbers count as well', () => {
  const packed = Buffer.concat([Buffer.from([tagOf(3, 2), 0xc0, 0x84, 0x3d]), Buffer.alloc(1_000_000, 1)]);
  const { states } = jobs.ListRequest.decode(packed);
  expect(states).toHaveLength(1_000_000); // the field is the one that is meant
  expect(() => decodeRequest(Jobs.list, packed)).toThrow(expect.objectContaining(tooMany));
});

test('what passes as bytes is not read at all', () => {
  const bytes = empties(1, 1_000_000);
  expect(decodeRequest(asBytes(Jobs).submitBatch, bytes)).toBe(bytes);
});
