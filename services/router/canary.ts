/**
 * Is an ejected node well again? Not a user's request finds out, but a small picture with a known
 * seed, asked for while the breaker is half open.
 */
import { generation } from '#contracts';
import { Code, type Emit, Reason, StatusError } from '#core';
import type { FleetNode } from './dispatch/fleet-node.js';
import type { RouterEvent } from './events.js';

const CANARY_SEED = 1n;
const CANARY_STEPS = 2;

/** Resolves when the node drew it; rejects with its answer. */
export async function drawCanary(node: FleetNode | undefined, emit: Emit<RouterEvent>, signal: AbortSignal): Promise<void> {
  // One that is loaded: a load would say little about the node's health, and put out what callers use.
  const model = node?.beat.models.find(({ loaded = true }) => loaded) ?? node?.beat.models[0];
  if (!node || !model) throw new StatusError({ code: Code.UNAVAILABLE, reason: Reason.ENGINE_NOT_READY, message: 'no model is loaded' });
  const { limits } = model;
  const request = generation.GenerateRequest.fromPartial({
    requestId: `canary-${node.nodeId}`,
    model: model.name,
    prompt: 'canary',
    width: limits.minWidth,
    height: limits.minHeight,
    steps: Math.min(Math.max(CANARY_STEPS, limits.minSteps), limits.maxSteps),
    seed: CANARY_SEED,
  });
  try {
    await node.link.channel.unary(generation.ImageGenerationServiceService.generate, request, { signal });
    emit({ type: 'canaryEnded', nodeId: node.nodeId, ok: true, reason: 'OK' });
  } catch (thrown) {
    const error = StatusError.from(thrown);
    emit({ type: 'canaryEnded', nodeId: node.nodeId, ok: false, reason: error.reason });
    throw error;
  }
}
