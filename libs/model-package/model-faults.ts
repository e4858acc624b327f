/**
 * Does what a model says of itself make sense? Its types are right by now; here are the bounds of the
 * contract's fields (a figure that no field holds would break every list the model is in) and the
 * contradictions that would make every plain request fail. Both the file and the beats are asked, so
 * that a node never offers what a router cannot believe. Pure.
 */
import type { ModelInfo } from './model-info.js';

type Defaults = ModelInfo['defaults'];
type Limits = ModelInfo['limits'];

const MAX_UINT32 = 2 ** 32 - 1;
const MAX_FLOAT32 = (2 - 2 ** -23) * 2 ** 127;

const WHOLE_DEFAULTS = ['width', 'height', 'steps'] as const satisfies readonly (keyof Defaults)[];
/** With the least value that is of any use. */
const WHOLE_LIMITS = [
  ['sizeMultiple', 1],
  ['minWidth', 0],
  ['maxWidth', 1],
  ['minHeight', 0],
  ['maxHeight', 1],
  ['minSteps', 0],
  ['maxSteps', 1],
  ['maxImageCount', 1],
  ['maxPromptTokens', 0],
  ['maxLoras', 0],
] as const satisfies readonly (readonly [keyof Limits, number])[];
const FLOAT_LIMITS = [
  'minGuidanceScale',
  'maxGuidanceScale',
  'minLoraStrength',
  'maxLoraStrength',
] as const satisfies readonly (keyof Limits)[];
const RANGES = [
  ['minWidth', 'maxWidth', 'width'],
  ['minHeight', 'maxHeight', 'height'],
  ['minSteps', 'maxSteps', 'steps'],
  ['minGuidanceScale', 'maxGuidanceScale', 'guidanceScale'],
  ['minLoraStrength', 'maxLoraStrength', undefined],
] as const satisfies readonly (readonly [keyof Limits, keyof Limits, keyof Defaults | undefined])[];
const SIZES = ['width', 'height'] as const;

/** Every fault with the name of its field; none for a model that can be offered. */
export function modelFaults({ defaults, limits }: Pick<ModelInfo, 'defaults' | 'limits'>): string[] {
  const faults: string[] = [];
  for (const name of WHOLE_DEFAULTS) expectWhole(faults, `defaults.${name}`, defaults[name], 1);
  expectFloat(faults, 'defaults.guidanceScale', defaults.guidanceScale);
  for (const [name, min] of WHOLE_LIMITS) expectWhole(faults, `limits.${name}`, limits[name], min);
  for (const name of FLOAT_LIMITS) expectFloat(faults, `limits.${name}`, limits[name]);
  for (const [minName, maxName, usual] of RANGES) {
    const [min, max] = [limits[minName], limits[maxName]];
    if (min > max) faults.push(`limits.${maxName}: ${max} is less than ${minName}, ${min}`);
    else if (usual && (defaults[usual] < min || defaults[usual] > max)) {
      faults.push(`defaults.${usual}: ${defaults[usual]} is outside ${min} to ${max}`);
    }
  }
  for (const name of SIZES) {
    if (defaults[name] % limits.sizeMultiple > 0)
      faults.push(`defaults.${name}: ${defaults[name]} is no multiple of ${limits.sizeMultiple}`);
  }
  return faults;
}

function expectWhole(faults: string[], field: string, value: number, min: number): void {
  if (Number.isInteger(value) && value >= min && value <= MAX_UINT32) return;
  faults.push(`${field}: expected an integer from ${min} to ${MAX_UINT32}, got ${value}`);
}

function expectFloat(faults: string[], field: string, value: number): void {
  if (Math.abs(value) > MAX_FLOAT32) faults.push(`${field}: expected a number that 32 bits hold, got ${value}`);
}
