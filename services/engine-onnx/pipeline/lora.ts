/**
 * Merges a LoRA (Hu et al. 2021) into transformer weights: W + strength · (alpha / rank) · B · A, in
 * place in the bytes of a safetensors file. Reads the key styles that are about: diffusers and PEFT
 * (`transformer.…lora_A.weight`), ComfyUI (`diffusion_model.…`), Kohya (`lora_unet_…lora_down.weight`
 * with `.alpha`).
 *
 * Every key of the file must find its place. An adapter that fits nothing or only in part would draw
 * pictures that look as if it had been applied, so it is refused: FAILED_PRECONDITION/LORA_UNUSABLE.
 */
import { Code, Reason, StatusError } from '#core';
import { readTensors, type TensorEntry } from './safetensors.js';

export interface LoraUse {
  readonly name: string;
  readonly strength: number;
}

interface Pair {
  down?: TensorEntry;
  up?: TensorEntry;
  alpha?: TensorEntry;
}

const PREFIX = /^(?:transformer|diffusion_model|base_model\.model|lora_unet)[._]/;
const ROLES: readonly (readonly [RegExp, keyof Pair])[] = [
  [/\.(?:lora_A|lora_down|lora\.down)(?:\.default)?\.weight$/, 'down'],
  [/\.(?:lora_B|lora_up|lora\.up)(?:\.default)?\.weight$/, 'up'],
  [/\.alpha$/, 'alpha'],
];
/** Names shown of those that do not fit. */
const SHOWN_COUNT = 5;

/** `weights` and `adapter` are whole safetensors files; `weights` is changed. */
export function mergeLora(weights: Buffer, adapter: Buffer, use: LoraUse): void {
  const targets = readTensors(weights);
  let entries: Map<string, TensorEntry>;
  try {
    entries = readTensors(adapter);
  } catch (cause) {
    throw loraUnusable(use.name, 'its file is no safetensors file', cause);
  }
  const { pairs, unmatched } = match(entries, targets);
  if (pairs.size === 0) throw loraUnusable(use.name, `none of its ${entries.size} tensors belongs to this model`);
  if (unmatched.length > 0) {
    throw loraUnusable(use.name, `${unmatched.length} of its ${entries.size} tensors do not belong to this model: ${listed(unmatched)}`);
  }
  for (const [target, pair] of pairs) addProduct(weights, adapter, { use, target, pair, entry: targets.get(target) });
}

export function loraUnusable(name: string, why: string, cause?: unknown): StatusError {
  return new StatusError({
    code: Code.FAILED_PRECONDITION,
    reason: Reason.LORA_UNUSABLE,
    message: `LoRA ${name}: ${why}`,
    resource: { type: 'lora', name, description: why },
    cause,
  });
}

/** Which adapter tensors belong to which weight, and which to none. */
function match(entries: ReadonlyMap<string, TensorEntry>, targets: ReadonlyMap<string, TensorEntry>) {
  // Kohya writes every dot of a module's path as an underscore.
  const byFlatName = new Map([...targets.keys()].map((name) => [flat(name.replace(/\.weight$/, '')), name]));
  const pairs = new Map<string, Pair>();
  const unmatched: string[] = [];
  for (const [key, entry] of entries) {
    const [pattern, role] = ROLES.find(([suffix]) => suffix.test(key)) ?? [];
    const module = pattern && key.replace(pattern, '').replace(PREFIX, '');
    const target = module === undefined ? undefined : byFlatName.get(flat(module));
    if (target === undefined || role === undefined) {
      unmatched.push(key);
      continue;
    }
    const pair = pairs.get(target) ?? {};
    pair[role] = entry;
    pairs.set(target, pair);
  }
  return { pairs, unmatched };
}

const flat = (path: string): string => path.replaceAll('.', '_');

interface Product {
  readonly use: LoraUse;
  readonly target: string;
  readonly pair: Pair;
  readonly entry: TensorEntry | undefined;
}

function addProduct(weights: Buffer, adapter: Buffer, { use, target, pair, entry }: Product): void {
  const { down, up, alpha } = pair;
  if (!down || !up) throw loraUnusable(use.name, `${target} has only one half of its pair`);
  const [rank = 0, columns = 0] = down.shape;
  const [rows = 0, upRank = 0] = up.shape;
  const fits = entry?.shape.length === 2 && entry.shape[0] === rows && entry.shape[1] === columns && rank === upRank;
  if (!entry || !fits || entry.dtype !== 'F32') {
    throw loraUnusable(
      use.name,
      `${target} is ${entry?.dtype} ${entry?.shape.join('x')}, its pair ${up.shape.join('x')} and ${down.shape.join('x')}`,
    );
  }
  const a = readFloats(adapter, down, use.name);
  const b = readFloats(adapter, up, use.name);
  const alphaValue = alpha ? (readFloats(adapter, alpha, use.name)[0] ?? rank) : rank;
  const scale = use.strength * (alphaValue / rank);
  const row = new Float64Array(columns);
  for (let i = 0; i < rows; i++) {
    row.fill(0);
    for (let r = 0; r < rank; r++) {
      const factor = b[i * rank + r] ?? 0;
      for (let j = 0; j < columns; j++) row[j] = (row[j] ?? 0) + factor * (a[r * columns + j] ?? 0);
    }
    for (let j = 0; j < columns; j++) {
      const at = entry.start + (i * columns + j) * 4;
      weights.writeFloatLE(weights.readFloatLE(at) + scale * (row[j] ?? 0), at);
    }
  }
}

function readFloats(file: Buffer, entry: TensorEntry, lora: string): Float32Array {
  const view = new DataView(file.buffer, file.byteOffset + entry.start, entry.end - entry.start);
  switch (entry.dtype) {
    case 'F32':
      return Float32Array.from({ length: view.byteLength / 4 }, (_, i) => view.getFloat32(i * 4, true));
    case 'BF16':
      return Float32Array.from({ length: view.byteLength / 2 }, (_, i) => fromBits(view.getUint16(i * 2, true) << 16));
    case 'F16':
      return Float32Array.from({ length: view.byteLength / 2 }, (_, i) => fromHalf(view.getUint16(i * 2, true)));
    default:
      throw loraUnusable(lora, `expected F32, F16 or BF16 values, got ${entry.dtype}`);
  }
}

const bits = new Int32Array(1);
const value = new Float32Array(bits.buffer);

function fromBits(pattern: number): number {
  bits[0] = pattern;
  return value[0] ?? 0;
}

function fromHalf(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function listed(names: readonly string[]): string {
  const rest = names.length - SHOWN_COUNT;
  return names.slice(0, SHOWN_COUNT).join(', ') + (rest > 0 ? ` and ${rest} more` : '');
}
