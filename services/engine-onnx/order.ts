/**
 * Is a request one this engine can draw? The node has filled in every default, so zero is an error
 * here. Every violation at once; unknown names are NOT_FOUND with what exists.
 */
import type { engine } from '#contracts';
import { badRequest, Code, Reason, StatusError, type Violation } from '#core';
import { latentShape, type ModelInfo, resolveRequest } from '#model-package';
import type { DrawOrder } from './worker/messages.js';

const FLOAT_BYTES = Float32Array.BYTES_PER_ELEMENT;

export function orderOf(request: engine.EngineGenerateRequest, model: ModelInfo): DrawOrder {
  const resolution = resolveRequest({ ...request, imageCount: request.items.length, format: 0, priority: 0 }, model);
  const unset: Violation[] = (['width', 'height', 'steps'] as const)
    .filter((field) => request[field] === 0)
    .map((field) => ({ field, description: 'expected it to be set, got 0' }));
  if (request.items.length === 0) unset.push({ field: 'items', description: 'expected at least one, got none' });
  const violations = [...unset, ...(resolution.ok ? [] : resolution.violations)];
  if (violations.length === 0) violations.push(...latentViolations(request));
  if (violations.length > 0) throw badRequest(violations);
  if (!resolution.ok) {
    const [name = ''] = resolution.unknownLoras;
    throw notFound(Reason.UNKNOWN_LORA, { type: 'lora', name, exists: model.loras.map((lora) => lora.name) });
  }
  const { prompt, width, height, steps, loras } = resolution.resolved;
  return { prompt, width, height, steps, loras, noises: request.items.map((item) => floatsOf(item.latents)) };
}

export function unknownModel(name: string, exists: readonly string[]): StatusError {
  return notFound(Reason.UNKNOWN_MODEL, { type: 'model', name, exists });
}

function latentViolations({ items, width, height }: engine.EngineGenerateRequest): Violation[] {
  const expectedBytes = latentShape(width, height).elementCount * FLOAT_BYTES;
  return items.flatMap(({ latents }, i) =>
    latents.length === expectedBytes
      ? []
      : [{ field: `items[${i}].latents`, description: `expected ${expectedBytes} bytes for ${width}x${height}, got ${latents.length}` }],
  );
}

/** Copied, since bytes inside a message lie at any offset and floats may not. */
function floatsOf(bytes: Uint8Array): Float32Array {
  return new Float32Array(new Uint8Array(bytes).buffer);
}

function notFound(reason: Reason, what: { type: string; name: string; exists: readonly string[] }): StatusError {
  const description = what.exists.length > 0 ? `there is ${what.exists.join(', ')}` : `this model has no ${what.type}`;
  return new StatusError({
    code: Code.NOT_FOUND,
    reason,
    message: `no ${what.type} ${JSON.stringify(what.name)}; ${description}`,
    resource: { type: what.type, name: what.name, description },
  });
}
