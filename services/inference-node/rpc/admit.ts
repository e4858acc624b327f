/** Is this request one for this node, and what exactly does it ask for? Every violation at once; defaults filled; seed pinned. */
import type { generation } from '#contracts';
import { badRequest, Code, type Random, Reason, StatusError } from '#core';
import { isRequestId, type ModelInfo, resolveRequest } from '#model-package';
import type { Drawable } from '../engine/engine-request.js';

/** `fallbackId`: the `x-request-id` of the call, used when the request has no id of its own. */
export function admit(
  request: generation.GenerateRequest,
  by: { readonly model: ModelInfo; readonly random: Random; readonly fallbackId: string | undefined },
): Drawable {
  const { model, random } = by;
  const resolution = resolveRequest(request, model);
  if (!resolution.ok)
    throw resolution.violations.length > 0 ? badRequest(resolution.violations) : unknownLora(resolution.unknownLoras, model);
  const { requestId, ...resolved } = resolution.resolved;
  return {
    ...resolved,
    model: model.name,
    revision: model.revision,
    seed: request.seed ?? BigInt(Math.floor(random() * 2 ** 32)),
    requestId: requestId !== '' ? requestId : requestIdOf(by.fallbackId, random),
  };
}

function requestIdOf(fallback: string | undefined, random: Random): string {
  if (fallback !== undefined && isRequestId(fallback)) return fallback;
  const hex = () =>
    Math.floor(random() * 2 ** 32)
      .toString(16)
      .padStart(8, '0');
  return `r-${hex()}${hex()}`;
}

function unknownLora(unknown: readonly string[], model: ModelInfo): StatusError {
  const known = model.loras.map(({ name }) => name).join(', ');
  const exists = known === '' ? `${model.name} has no LoRAs` : `${model.name} has ${known}`;
  return new StatusError({
    code: Code.NOT_FOUND,
    reason: Reason.UNKNOWN_LORA,
    message: `${exists}; got ${unknown.map((name) => JSON.stringify(name)).join(', ')}`,
    resource: { type: 'lora', name: unknown.join(', '), description: exists },
  });
}
