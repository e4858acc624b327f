/**
 * Turns a request into exact orders: is every field allowed by this model, and what does a field
 * left out mean? The router asks before it queues a request, the node before it draws one, so both
 * give the same answer. Pure.
 *
 * Names of adapters that do not exist are reported apart, since they are NOT_FOUND rather than
 * INVALID_ARGUMENT. The prompt's length in tokens is the engine's to judge.
 */
import type { Violation } from '#core';
import type { ModelInfo } from './model-info.js';

/** The fields of generation.GenerateRequest that decide the picture; zero, empty or absent means the model's default. */
export interface RequestFields {
  readonly requestId: string;
  readonly prompt: string;
  readonly negativePrompt: string;
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  readonly guidanceScale?: number | undefined;
  readonly imageCount: number;
  readonly loras: readonly { readonly name: string; readonly strength?: number | undefined }[];
  /** generation.ImageFormat */
  readonly format: number;
  /** generation.Priority */
  readonly priority: number;
}

export interface ResolvedRequest {
  /** As it came; may be empty. */
  readonly requestId: string;
  readonly prompt: string;
  readonly negativePrompt: string;
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  readonly guidanceScale: number;
  readonly imageCount: number;
  readonly loras: readonly { readonly name: string; readonly strength: number }[];
}

export type Resolution =
  | { readonly ok: true; readonly resolved: ResolvedRequest }
  | { readonly ok: false; readonly violations: readonly Violation[]; readonly unknownLoras: readonly string[] };

export const MAX_PROMPT_BYTES = 8192;
const REQUEST_ID = /^[A-Za-z0-9._:-]{1,128}$/;
const DEFAULT_LORA_STRENGTH = 1;
/** PNG, JPEG, WEBP; HIGH, NORMAL, LOW. Zero is "unspecified". */
const MAX_FORMAT = 3;
const MAX_PRIORITY = 3;

export function resolveRequest(request: RequestFields, model: ModelInfo): Resolution {
  const { defaults, limits } = model;
  const resolved: ResolvedRequest = {
    requestId: request.requestId,
    prompt: request.prompt,
    negativePrompt: request.negativePrompt,
    width: request.width === 0 ? defaults.width : request.width,
    height: request.height === 0 ? defaults.height : request.height,
    steps: request.steps === 0 ? defaults.steps : request.steps,
    guidanceScale: request.guidanceScale ?? defaults.guidanceScale,
    imageCount: request.imageCount === 0 ? 1 : request.imageCount,
    loras: request.loras.map(({ name, strength }) => ({ name, strength: strength ?? DEFAULT_LORA_STRENGTH })),
  };
  const unknownLoras = unknownNames(resolved.loras, model);
  const violations = [
    ...idViolations(request.requestId),
    ...promptViolations(resolved, model),
    ...sizeViolations('width', resolved.width, { min: limits.minWidth, max: limits.maxWidth, multiple: limits.sizeMultiple }),
    ...sizeViolations('height', resolved.height, { min: limits.minHeight, max: limits.maxHeight, multiple: limits.sizeMultiple }),
    ...integerViolations('steps', resolved.steps, limits.minSteps, limits.maxSteps),
    ...numberViolations('guidance_scale', resolved.guidanceScale, limits.minGuidanceScale, limits.maxGuidanceScale),
    ...integerViolations('image_count', resolved.imageCount, 1, limits.maxImageCount),
    ...loraViolations(resolved.loras, limits),
    ...(request.format >= 0 && request.format <= MAX_FORMAT ? [] : [violation('format', 'PNG, JPEG or WEBP', request.format)]),
    ...(request.priority >= 0 && request.priority <= MAX_PRIORITY ? [] : [violation('priority', 'HIGH, NORMAL or LOW', request.priority)]),
  ];
  return violations.length === 0 && unknownLoras.length === 0 ? { ok: true, resolved } : { ok: false, violations, unknownLoras };
}

/** What may name a request in logs and metadata. */
export function isRequestId(text: string): boolean {
  return REQUEST_ID.test(text);
}

function idViolations(requestId: string): Violation[] {
  if (requestId === '' || isRequestId(requestId)) return [];
  return [violation('request_id', 'up to 128 of [A-Za-z0-9._:-]', clip(requestId))];
}

function promptViolations({ prompt, negativePrompt }: ResolvedRequest, model: ModelInfo): Violation[] {
  const violations: Violation[] = [];
  const promptBytes = Buffer.byteLength(prompt);
  const negativeBytes = Buffer.byteLength(negativePrompt);
  if (promptBytes < 1 || promptBytes > MAX_PROMPT_BYTES) {
    violations.push({ field: 'prompt', description: `expected 1 to ${MAX_PROMPT_BYTES} bytes, got ${promptBytes}` });
  }
  if (negativeBytes > 0 && !model.negativePrompt) {
    violations.push({
      field: 'negative_prompt',
      description: `expected none, as ${model.name} has no use for it, got ${negativeBytes} bytes`,
    });
  } else if (negativeBytes > MAX_PROMPT_BYTES) {
    violations.push({ field: 'negative_prompt', description: `expected at most ${MAX_PROMPT_BYTES} bytes, got ${negativeBytes}` });
  }
  return violations;
}

function sizeViolations(field: string, value: number, allowed: { min: number; max: number; multiple: number }): Violation[] {
  const { min, max, multiple } = allowed;
  if (value >= min && value <= max && value % multiple === 0) return [];
  return [violation(field, `a multiple of ${multiple} from ${min} to ${max}`, value)];
}

function integerViolations(field: string, value: number, min: number, max: number): Violation[] {
  if (Number.isInteger(value) && value >= min && value <= max) return [];
  return [violation(field, `an integer from ${min} to ${max}`, value)];
}

function numberViolations(field: string, value: number, min: number, max: number): Violation[] {
  // NaN fails both comparisons.
  if (value >= min && value <= max) return [];
  return [violation(field, min === max ? String(min) : `a number from ${min} to ${max}`, value)];
}

function loraViolations(loras: ResolvedRequest['loras'], limits: ModelInfo['limits']): Violation[] {
  // A request has room for a hundred thousand of them: too many are not looked at.
  if (loras.length > limits.maxLoras) return [violation('loras', `at most ${limits.maxLoras}`, loras.length)];
  return loras.flatMap(({ name, strength }, i) => [
    ...numberViolations(`loras[${i}].strength`, strength, limits.minLoraStrength, limits.maxLoraStrength),
    ...(loras.findIndex((lora) => lora.name === name) === i ? [] : [violation(`loras[${i}].name`, 'each adapter once', clip(name))]),
  ]);
}

function unknownNames(loras: ResolvedRequest['loras'], { limits, loras: known }: ModelInfo): string[] {
  if (loras.length > limits.maxLoras) return [];
  const names = new Set(loras.map(({ name }) => name));
  return [...names].filter((name) => !known.some((lora) => lora.name === name)).map(clip);
}

function violation(field: string, expected: string, got: string | number): Violation {
  return { field, description: `expected ${expected}, got ${typeof got === 'string' ? JSON.stringify(got) : got}` };
}

function clip(text: string): string {
  return text.length <= 140 ? text : `${text.slice(0, 139)}…`;
}
