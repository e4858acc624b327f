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
