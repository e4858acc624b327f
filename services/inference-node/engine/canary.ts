/**
 * Does this engine still draw what it should? A tiny request with a known seed runs after every load
 * and after every fault; equal determinism class, equal bytes, so the digest of its picture must be
 * the one seen first (or the one an operator gave). A GPU that computes nonsense fails here before a
 * caller sees a picture.
 */
import { createHash } from 'node:crypto';
import type { Clock } from '#core';
import type { ModelInfo } from '#model-package';
import type { Cost } from '../domain/cost-estimate.js';
import { collect } from './collect.js';
import type { EngineConnection } from './connection.js';
import { engineRequest } from './engine-request.js';

export interface CanaryResult {
  /** SHA-256 of the RGB bytes, in hex. */
  readonly digest: string;
  readonly cost: Cost;
  readonly tookMs: number;
}

const PROMPT = 'a red circle';
const SEED = 42n;
const STEPS = 2;

export interface CanaryOptions {
  readonly connection: EngineConnection;
  readonly model: ModelInfo;
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** Rejects with the engine's error, or with TimeoutError when it takes too long. */
export async function drawCanary({ connection, model, clock, timeoutMs, signal }: CanaryOptions): Promise<CanaryResult> {
  const { limits, defaults } = model;
  const steps = Math.min(limits.maxSteps, Math.max(limits.minSteps, STEPS));
  const cost = { model: model.name, width: limits.minWidth, height: limits.minHeight, steps, imageCount: 1 };
  const hash = createHash('sha256');
  const startedAt = clock.now();
  const timeout = new AbortController();
  const cancelTimeout = clock.schedule(timeoutMs, () => timeout.abort(new Error(`the canary took longer than ${timeoutMs} ms`)));
  try {
    const request = engineRequest({
      ...cost,
      requestId: 'canary',
      revision: model.revision,
      prompt: PROMPT,
      negativePrompt: '',
      guidanceScale: defaults.guidanceScale,
      seed: SEED,
      loras: [],
    });
    const events = connection.generate(request, AbortSignal.any([signal, timeout.signal]));
    await collect(events, { ...cost, onStep: () => {}, onImage: (rgb) => void hash.update(rgb.data) });
  } finally {
    cancelTimeout();
  }
  return { digest: hash.digest('hex'), cost, tookMs: clock.now() - startedAt };
}
