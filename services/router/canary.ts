/**
 * Is an ejected node well again? Not a user's request finds out, but a small picture with a known
 * seed, asked for while the breaker is half open.
 */
import { generation } from '#contracts';
import { Code, type Emit, Reason, StatusError } from '#core';
import type { ModelInfo } from '#model-package';
import type { FleetNode } from './dispatch/fleet-node.js';
import type { RouterEvent } from './events.js';
import type { SlowNodes } from './slow-nodes.js';

const CANARY_SEED = 1n;
const CANARY_STEPS = 2;

/** Resolves when the node drew it, and in time where it is in quarantine; rejects with its answer. */
export async function drawCanary(
  node: FleetNode | undefined,
  { emit, slowNodes }: { emit: Emit<RouterEvent>; slowNodes: SlowNodes },
  signal: AbortSignal,
): Promise<void> {
  // One that is loaded: a load would say little about the node's health, and put out what callers use.
  const model = node?.beat.models.find(({ loaded = true }) => loaded) ?? node?.beat.models[0];
  if (!node || !model) throw new StatusError({ code: Code.UNAVAILABLE, reason: Reason.ENGINE_NOT_READY, message: 'no model is loaded' });
  const yardstick = slowNodes.yardstick(node);
  const request = generation.GenerateRequest.fromPartial({
    requestId: `canary-${node.nodeId}`,
    prompt: 'canary',
    seed: CANARY_SEED,
    ...(yardstick ? yardstick.work : smallestOf(model)),
  });
  try {
    const { channel } = node.link;
    const { response } = await channel.unary(generation.ImageGenerationServiceService.generate, request, { signal });
    if (yardstick) slowNodes.judge(node, yardstick, response.executingMs);
    emit({ type: 'canaryEnded', nodeId: node.nodeId, ok: true, reason: 'OK' });
  } catch (thrown) {
    const error = StatusError.from(thrown);
    emit({ type: 'canaryEnded', nodeId: node.nodeId, ok: false, reason: error.reason });
    throw error;
  }
}

function smallestOf({ name, limits }: ModelInfo): Partial<generation.GenerateRequest> {
  return {
    model: name,
    width: limits.minWidth,
    height: limits.minHeight,
    steps: Math.min(Math.max(CANARY_STEPS, limits.minSteps), limits.maxSteps),
  };
}
