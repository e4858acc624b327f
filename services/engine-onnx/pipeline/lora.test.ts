import { expect, test } from 'vitest';
import { Code, Reason } from '#core';
import { mergeLora } from './lora.js';
import { readTensors } from './safetensors.js';

interface Tensor {
  readonly dtype?: string;
  readonly shape: readonly number[];
  readonly bytes: Buffer;
}

const f32 = (shape: number[], values: number[]): Tensor => ({ shape, bytes: Buffer.from(Float32Array.from(values).buffer) });
const u16 = (dtype: string, shape: number[], values: number[]): Tensor => ({
  dtype,
  shape,
  bytes: Buffer.from(Uint16Array.from(values).buffer),
});

function safetensors(tensors: Readonly<Record<string, Tensor>>): Buffer {
  let at = 0;
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  for (const [name, { dtype = 'F32', shape, bytes }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [at, at + bytes.length] };
    at += bytes.length;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, ...Object.values(tensors).map((tensor) => tensor.bytes)]);
}

/** Two rows, three columns, all 1; and something else that must stay as it is. */
const base = () => safetensors({ 'layers.0.to_q.weight': f32([2, 3], [1, 1, 1, 1, 1, 1]), 'layers.0.norm.weight': f32([1], [9]) });
const down = f32([1, 3], [1, 2, 3]);
const up = f32([2, 1], [10, 20]);

function valuesOf(file: Buffer, name: string): number[] {
  const { start = 0, end = 0 } = readTensors(file).get(name) ?? {};
  return [...new Float32Array(new Uint8Array(file.subarray(start, end)).buffer)];
}

test.each([
  ['diffusers', { 'transformer.layers.0.to_q.lora_A.weight': down, 'transformer.layers.0.to_q.lora_B.weight': up }],
  ['PEFT', { 'base_model.model.layers.0.to_q.lora_A.default.weight': down, 'base_model.model.layers.0.to_q.lora_B.default.weight': up }],
  ['ComfyUI', { 'diffusion_model.layers.0.to_q.lora_A.weight': down, 'diffusion_model.layers.0.to_q.lora_B.weight': up }],
  ['bare', { 'layers.0.to_q.lora.down.weight': down, 'layers.0.to_q.lora.up.weight': up }],
  [
    'Kohya, alpha 1 of rank 1',
    {
      'lora_unet_layers_0_to_q.lora_down.weight': down,
      'lora_unet_layers_0_to_q.lora_up.weight': up,
      'lora_unet_layers_0_to_q.alpha': f32([], [1]),
    },
  ],
  [
    'half precision',
    {
      'layers.0.to_q.lora_A.weight': u16('F16', [1, 3], [0x3c00, 0x4000, 0x4200]),
      'layers.0.to_q.lora_B.weight': u16('BF16', [2, 1], [0x4120, 0x41a0]),
    },
  ],
])('mergeLora() adds strength · B · A with %s keys', (_style, adapter) => {
  const weights = base();
  mergeLora(weights, safetensors(adapter), { name: 'x', strength: 0.5 });
  expect(valuesOf(weights, 'layers.0.to_q.weight')).toEqual([6, 11, 16, 11, 21, 31]);
  expect(valuesOf(weights, 'layers.0.norm.weight')).toEqual([9]);
});

test('mergeLora() scales by alpha over rank', () => {
  const weights = base();
  const adapter = { 'layers.0.to_q.lora_A.weight': down, 'layers.0.to_q.lora_B.weight': up, 'layers.0.to_q.alpha': f32([1], [0.5]) };
  mergeLora(weights, safetensors(adapter), { name: 'x', strength: 1 });
  expect(valuesOf(weights, 'layers.0.to_q.weight')).toEqual([6, 11, 16, 11, 21, 31]);
});

test.each([
  ['no file of tensors', Buffer.from('hello'), 'no safetensors file'],
  ['another model’s keys only', safetensors({ 'blocks.7.lora_A.weight': down, 'blocks.7.lora_B.weight': up }), 'none of its 2 tensors'],
  [
    'keys that fit in part',
    safetensors({ 'layers.0.to_q.lora_A.weight': down, 'layers.0.to_q.lora_B.weight': up, 'layers.9.to_q.lora_A.weight': down }),
    '1 of its 3 tensors do not belong to this model: layers.9.to_q.lora_A.weight',
  ],
  ['half a pair', safetensors({ 'layers.0.to_q.lora_A.weight': down }), 'only one half'],
  [
    'another shape',
    safetensors({ 'layers.0.to_q.lora_A.weight': f32([1, 2], [1, 2]), 'layers.0.to_q.lora_B.weight': up }),
    'is F32 2x3, its pair 2x1 and 1x2',
  ],
  ['integers', safetensors({ 'layers.0.to_q.lora_A.weight': { ...down, dtype: 'I32' }, 'layers.0.to_q.lora_B.weight': up }), 'got I32'],
])('mergeLora() refuses %s', (_what, adapter, text) => {
  const merge = () => mergeLora(base(), adapter, { name: 'x', strength: 1 });
  expect(merge).toThrow(text);
  expect(merge).toThrow(expect.objectContaining({ code: Code.FAILED_PRECONDITION, reason: Reason.LORA_UNUSABLE }));
});
