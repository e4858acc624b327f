import { expect, test } from 'vitest';
import type { ModelInfo } from './model-info.js';
import { type RequestFields, resolveRequest } from './resolve.js';

const model: ModelInfo = {
  name: 'tiny',
  revision: '1',
  family: 'z-image',
  languages: ['en'],
  defaults: { width: 128, height: 96, steps: 8, guidanceScale: 0 },
  limits: {
    sizeMultiple: 16,
    minWidth: 64,
    maxWidth: 256,
    minHeight: 64,
    maxHeight: 192,
    minSteps: 1,
    maxSteps: 50,
    minGuidanceScale: 0,
    maxGuidanceScale: 0,
    maxImageCount: 4,
    maxPromptTokens: 64,
    maxLoras: 2,
    minLoraStrength: 0,
    maxLoraStrength: 2,
  },
  negativePrompt: false,
  loras: [
    { name: 'pastel', description: '' },
    { name: 'neon', description: '' },
    { name: 'ink', description: '' },
  ],
};

const request = (changes: Partial<RequestFields> = {}): RequestFields => ({
  requestId: '',
  prompt: 'a red circle',
  negativePrompt: '',
  width: 0,
  height: 0,
  steps: 0,
  imageCount: 0,
  loras: [],
  format: 0,
  priority: 0,
  ...changes,
});

test('resolveRequest() fills what is left out with the model’s defaults', () => {
  expect(resolveRequest(request({ loras: [{ name: 'neon' }] }), model)).toEqual({
    ok: true,
    resolved: {
      requestId: '',
      prompt: 'a red circle',
      negativePrompt: '',
      width: 128,
      height: 96,
      steps: 8,
      guidanceScale: 0,
      imageCount: 1,
      loras: [{ name: 'neon', strength: 1 }],
    },
  });
});

test('resolveRequest() keeps what is given, strength 0 included', () => {
  const loras = [
    { name: 'neon', strength: 0 },
    { name: 'ink', strength: 2 },
  ];
  const given = {
    requestId: 'a.b:c_d-1',
    width: 256,
    height: 64,
    steps: 50,
    guidanceScale: 0,
    imageCount: 4,
    loras,
    format: 3,
    priority: 3,
  };
  const { format: _format, priority: _priority, ...kept } = given;
  expect(resolveRequest(request(given), model)).toMatchObject({ ok: true, resolved: kept });
});

test.each<[string, Partial<RequestFields>, string, string]>([
  ['a long id', { requestId: 'x'.repeat(129) }, 'request_id', 'up to 128 of [A-Za-z0-9._:-]'],
  ['a space in the id', { requestId: 'a b' }, 'request_id', 'got "a b"'],
  ['no prompt', { prompt: '' }, 'prompt', 'expected 1 to 8192 bytes, got 0'],
  ['a prompt that is long in bytes', { prompt: '红'.repeat(2731) }, 'prompt', 'expected 1 to 8192 bytes, got 8193'],
  ['a negative prompt without use', { negativePrompt: 'blurry' }, 'negative_prompt', 'expected none, as tiny has no use for it'],
  ['too narrow', { width: 48 }, 'width', 'expected a multiple of 16 from 64 to 256, got 48'],
  ['too wide', { width: 272 }, 'width', 'got 272'],
  ['off the grid', { height: 100 }, 'height', 'expected a multiple of 16 from 64 to 192, got 100'],
  ['the height of another side', { height: 256 }, 'height', 'got 256'],
  ['too many steps', { steps: 51 }, 'steps', 'expected an integer from 1 to 50, got 51'],
  ['guidance', { guidanceScale: 1 }, 'guidance_scale', 'expected 0, got 1'],
  ['guidance that is no number', { guidanceScale: Number.NaN }, 'guidance_scale', 'got NaN'],
  ['too many images', { imageCount: 5 }, 'image_count', 'expected an integer from 1 to 4, got 5'],
  ['too many LoRAs', { loras: model.loras.map(({ name }) => ({ name })) }, 'loras', 'expected at most 2, got 3'],
  ['a LoRA twice', { loras: [{ name: 'neon' }, { name: 'neon' }] }, 'loras[1].name', 'expected each adapter once, got "neon"'],
  ['a strength too high', { loras: [{ name: 'neon', strength: 2.5 }] }, 'loras[0].strength', 'expected a number from 0 to 2, got 2.5'],
  ['an endless strength', { loras: [{ name: 'neon', strength: Number.POSITIVE_INFINITY }] }, 'loras[0].strength', 'got Infinity'],
  ['a strength that is none', { loras: [{ name: 'neon', strength: Number.NaN }] }, 'loras[0].strength', 'got NaN'],
  ['an unknown format', { format: 4 }, 'format', 'expected PNG, JPEG or WEBP, got 4'],
  ['an unknown priority', { priority: -1 }, 'priority', 'expected HIGH, NORMAL or LOW, got -1'],
])('resolveRequest() refuses %s', (_what, changes, field, text) => {
  expect(resolveRequest(request(changes), model)).toEqual({
    ok: false,
    violations: [{ field, description: expect.stringContaining(text) }],
    unknownLoras: [],
  });
});

test('resolveRequest() names every violation at once, in the order of the fields', () => {
  const resolution = resolveRequest(
    request({ prompt: '', width: 1, height: 1, steps: 99, imageCount: 9, loras: [{ name: 'neon', strength: 3 }] }),
    model,
  );
  expect(resolution.ok ? [] : resolution.violations.map((violation) => violation.field)).toEqual([
    'prompt',
    'width',
    'height',
    'steps',
    'image_count',
    'loras[0].strength',
  ]);
});

test('resolveRequest() tells unknown LoRAs apart from violations', () => {
  expect(resolveRequest(request({ loras: [{ name: 'neon' }, { name: 'oil' }] }), model)).toEqual({
    ok: false,
    violations: [],
    unknownLoras: ['oil'],
  });
});

test('resolveRequest() takes a negative prompt for a model that uses it', () => {
  expect(resolveRequest(request({ negativePrompt: 'blurry' }), { ...model, negativePrompt: true }).ok).toBe(true);
});

test('resolveRequest() does not look at a hundred thousand LoRAs', () => {
  const loras = Array.from({ length: 120_000 }, (_, i) => ({ name: i.toString(36) }));
  const startedAt = performance.now();
  expect(resolveRequest(request({ loras }), model)).toEqual({
    ok: false,
    violations: [{ field: 'loras', description: 'expected at most 2, got 120000' }],
    unknownLoras: [],
  });
  // Looking at each pair took more than a minute.
  expect(performance.now() - startedAt).toBeLessThan(10_000);
});
