import { describe, expect, it } from 'vitest';
import { sampleBeat } from '../../test/support/sample-beat.js';
import { parseBeat, parseLeave } from './parse-beat.js';

const bytes = (value: unknown) => Buffer.from(JSON.stringify(value));
/** The sample with one thing replaced, by path. */
function spoilt(path: string, value: unknown): unknown {
  const copy: unknown = JSON.parse(JSON.stringify(sampleBeat({ running: [{ requestId: 'r', step: 1, total: 8, remainingMs: 900 }] })));
  const keys = path.split('.');
  let target = copy as Record<string, unknown>;
  for (const key of keys.slice(0, -1)) target = target[key] as Record<string, unknown>;
  target[keys.at(-1) ?? ''] = value;
  return copy;
}

describe('parseBeat()', () => {
  it('gives back what a node sent', () => {
    const beat = sampleBeat();
    expect(parseBeat(bytes(beat))).toEqual({ kind: 'ok', value: beat });
  });

  it('accepts a node without a GPU and without models', () => {
    expect(parseBeat(bytes(sampleBeat({ gpu: null, models: [] }))).kind).toBe('ok');
  });

  it('lets unknown fields pass: newer nodes may say more', () => {
    expect(parseBeat(bytes({ ...sampleBeat(), mood: 'sunny', engine: { ...sampleBeat().engine, kernels: 3 } })).kind).toBe('ok');
  });

  it('accepts the greatest figures that the contract holds', () => {
    const gpu = { ...sampleBeat().gpu, memoryTotalBytes: Number.MAX_SAFE_INTEGER, memoryUsedBytes: 0, utilisationRatio: 1 };
    expect(parseBeat(bytes({ ...sampleBeat(), slotCount: 2 ** 32 - 1, completedCount: Number.MAX_SAFE_INTEGER, gpu })).kind).toBe('ok');
    expect(parseBeat(bytes(spoilt('models.0.limits.maxGuidanceScale', 3.4028234663852886e38))).kind).toBe('ok');
  });

  it('reads a view into a larger buffer', () => {
    const inner = bytes(sampleBeat());
    const outer = Buffer.concat([Buffer.from('xxxx'), inner, Buffer.from('yyyy')]);
    expect(parseBeat(outer.subarray(4, 4 + inner.length)).kind).toBe('ok');
  });

  it.each([
    ['nodeId', 'a.b', /nodeId/],
    ['nodeId', '', /nodeId/],
    ['nodeId', 'x'.repeat(65), /nodeId/],
    ['incarnation', '', /incarnation/],
    ['seq', -1, /seq/],
    ['seq', 1.5, /seq/],
    ['seq', '1', /seq: string/],
    ['address', '', /address/],
    ['engine', null, /engine: null/],
    ['engine.state', 'sleepy', /engine\.state/],
    ['models', {}, /models/],
    ['models.0.limits.maxWidth', null, /limits\.maxWidth/],
    ['models.0.defaults', undefined, /defaults/],
    ['models.0.languages', [1], /languages/],
    ['models.0.loras.0', 'x', /loras/],
    ['slotCount', null, /slotCount/],
    ['busyCount', -1, /busyCount/],
    ['running.0', 'r', /running/],
    ['running.0.remainingMs', 'soon', /remainingMs/],
    ['draining', 'no', /draining/],
    ['gpu', 'H200', /gpu/],
    ['gpu.memoryTotalBytes', '1', /memoryTotalBytes/],
    ['completedCount', undefined, /completedCount/],
    // What no field of the contract holds would break ListNodes and ListModels for all.
    ['address', 'a\nb:1', /address/],
    ['address', 'nowhere', /address/],
    ['slotCount', 2 ** 40, /slotCount/],
    ['busyCount', 2 ** 32, /busyCount/],
    ['completedCount', 1.5, /completedCount/],
    ['engine.restartCount', 2 ** 60, /restartCount/],
    ['running.0.step', 2 ** 40, /step/],
    ['running.0.total', 0.5, /total/],
    ['gpu.memoryTotalBytes', 1.5, /memoryTotalBytes/],
    ['gpu.memoryUsedBytes', -1, /memoryUsedBytes/],
    ['gpu.memoryPeakBytes', 0.5, /memoryPeakBytes/],
    ['gpu.utilisationRatio', 1e300, /utilisationRatio/],
    ['gpu.utilisationRatio', -0.1, /utilisationRatio/],
    ['models.0.limits.maxWidth', 1.5, /limits\.maxWidth/],
    ['models.0.limits.maxWidth', -5, /limits\.maxWidth/],
    ['models.0.limits.maxWidth', 2 ** 32, /limits\.maxWidth/],
    ['models.0.limits.maxGuidanceScale', 1e300, /limits\.maxGuidanceScale/],
    ['models.0.limits.maxLoraStrength', 3.5e38, /limits\.maxLoraStrength/],
    ['models.0.loaded', 'yes', /loaded/],
    ['models.0.loadMs', -1, /loadMs/],
    ['models.0.loadMs', 1e300, /loadMs/],
    ['models.0.limits.sizeMultiple', 0, /limits\.sizeMultiple/],
    ['models.0.limits.maxImageCount', 0, /limits\.maxImageCount/],
    // What contradicts itself would make every plain request fail.
    ['models.0.limits.minSteps', 51, /limits\.maxSteps: 50 is less than minSteps, 51/],
    ['models.0.limits.minLoraStrength', 2.5, /limits\.maxLoraStrength/],
    ['models.0.defaults.steps', 99, /defaults\.steps: 99 is outside 1 to 50/],
    ['models.0.defaults.guidanceScale', 1e300, /defaults\.guidanceScale/],
    ['models.0.defaults.width', 100, /defaults\.width: 100 is no multiple of 16/],
  ])('refuses %s = %j and says which', (path, value, fault) => {
    expect(parseBeat(bytes(spoilt(path, value)))).toEqual({ kind: 'garbage', fault: expect.stringMatching(fault) });
  });

  it.each([
    ['nothing', ''],
    ['no JSON', '{"nodeId":'],
    ['a bare value', '42'],
    ['null', 'null'],
    ['a list', '[]'],
    ['a number no float holds', JSON.stringify(sampleBeat()).replace('"temperatureCelsius":61', '"temperatureCelsius":1e999')],
    ['too much', `"${'x'.repeat(300_000)}"`],
  ])('refuses %s', (_name, text) => {
    expect(parseBeat(Buffer.from(text)).kind).toBe('garbage');
  });

  it('never throws, whatever bytes come', () => {
    const whole = bytes(sampleBeat());
    for (let i = 0; i < whole.length; i++) {
      parseBeat(whole.subarray(0, i));
      const flipped = Buffer.from(whole);
      flipped[i] = (flipped[i] ?? 0) ^ 0xff;
      parseBeat(flipped);
    }
  });
});

it('parseLeave() wants a node and an incarnation', () => {
  expect(parseLeave(bytes({ nodeId: 'a', incarnation: '1-a' })).kind).toBe('ok');
  expect(parseLeave(bytes({ nodeId: 'a' }))).toEqual({ kind: 'garbage', fault: 'incarnation: undefined' });
});
