/**
 * What both generate methods do: validate → take the slot → load the model, if need be → draw → encode. The slot
 * is free again when the engine has handed over its pixels; encoding overlaps with the next request.
 */
import { type engine, type generation, priorityName } from '#contracts';
import { type Clock, Code, type Emit, type Random, Reason, StatusError } from '#core';
import type { Call } from '#grpc';
import { PRIORITIES, type Service, sizeRatio } from '#scheduling';
import type { CostEstimate } from '../domain/cost-estimate.js';
import type { Lease, Slot } from '../domain/slot.js';
import { type EncodedImage, encodeImage } from '../encode.js';
import type { Catalogue, CatalogueModel } from '../engine/catalogue.js';
import type { Rgb } from '../engine/collect.js';
import { type Drawable, engineRequest, seedOfImage } from '../engine/engine-request.js';
import type { Executor, Work } from '../engine/executor.js';
import type { Loader } from '../engine/loader.js';
import type { Supervisor } from '../engine/supervisor.js';
import type { NodeEvent } from '../events.js';
import { admit } from './admit.js';
import type { Served } from './attach.js';

export interface GenerationParts {
  readonly nodeId: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly emit: Emit<NodeEvent>;
  readonly slot: Slot;
  readonly supervisor: Supervisor;
  readonly catalogue: Catalogue;
  readonly loader: Loader;
  readonly executor: Executor;
  readonly estimate: CostEstimate;
  /** A router's request has begun: the other routers hear what it counts as. */
  readonly onServed: (routerId: string, served: Served) => void;
}

export interface Observer {
  /** The slot is ours and the engine is about to begin. */
  readonly onStarted?: (info: { drawable: Drawable; attempt: number; loadMs: number; predictedMs: number }) => void;
  readonly onStep?: (step: engine.EngineStep) => void;
}

export interface Performed {
  readonly drawable: Drawable;
  readonly images: readonly (EncodedImage & { readonly seed: bigint })[];
  readonly used: generation.UsedParameters;
  readonly executingMs: number;
  readonly queuedMs: number;
  readonly attempts: number;
}

const LEASE_ID = /^\d{1,20}$/;

export async function perform(call: Call<generation.GenerateRequest>, parts: GenerationParts, observer: Observer = {}): Promise<Performed> {
  const attempts = attemptOf(call.metadata);
  call.trailers['x-mesh-node'] = parts.nodeId;
  call.trailers['x-mesh-attempts'] = String(attempts);
  call.trailers['x-mesh-queue-ms'] = '0';
  if (!parts.supervisor.known) throw notReady();
  const wanted = parts.catalogue.find(call.request.model, call.metadata['x-mesh-revision'] ?? '');
  const model = wanted.info;
  const drawable = admit(call.request, { model, random: parts.random, fallbackId: call.metadata['x-request-id'] });
  call.notes.request_id = drawable.requestId;
  const leaseId = leaseIdOf(call.metadata);
  parts.slot.check(leaseId);
  // Noise takes milliseconds a megapixel: made before the slot is ours, while another request may run.
  const order = engineRequest(drawable);
  if (wanted.loaded) parts.executor.prepare(drawable, call.signal);
  const lease = await parts.slot.take(leaseId, call.signal, wanted.loaded);
  const service = serviceOf(call.metadata);
  if (service) parts.onServed(call.metadata['x-mesh-router'] ?? '', { ...service, actedFor: call.metadata['x-mesh-acted-for'] === '1' });
  call.trailers['x-mesh-queue-ms'] = lease.waitedMs.toFixed(0);
  try {
    const loadMs = wanted.loaded ? 0 : wanted.loadMs;
    observer.onStarted?.({ drawable, attempt: attempts, loadMs, predictedMs: parts.estimate.predictMs(drawable) ?? 0 });
  } catch (thrown) {
    lease.release(); // from here on the executor does
    throw thrown;
  }
  const { encoding, executingMs, determinismClass } = await draw(
    { drawable, order, sizeRatio: sizeRatio(drawable, model.defaults) },
    lease,
    { wanted, call, parts, observer },
  );
  const images = await Promise.all(encoding);
  call.notes.executing_ms = Math.round(executingMs);
  const { seed, width, height, steps, guidanceScale, loras } = drawable;
  return {
    drawable,
    images: images.map((image, imageIndex) => ({ ...image, seed: seedOfImage(seed, imageIndex) })),
    used: {
      model: model.name,
      revision: model.revision,
      width,
      height,
      steps,
      guidanceScale,
      seed,
      loras: loras.map((lora) => ({ ...lora })),
      determinismClass,
    },
    executingMs,
    queuedMs: lease.waitedMs,
    attempts,
  };
}

/** Starts to encode each picture as soon as its pixels are there. Uses up the lease. */
async function draw(
  work: Work,
  lease: Lease,
  by: { wanted: CatalogueModel; call: Call<generation.GenerateRequest>; parts: GenerationParts; observer: Observer },
) {
  const { wanted, call, parts, observer } = by;
  const encoding: Promise<EncodedImage>[] = [];
  const encode = async (rgb: Rgb) => {
    const startedAt = parts.clock.now();
    const image = await encodeImage(rgb, call.request.format);
    parts.emit({
      type: 'imageEncoded',
      mimeType: image.mimeType,
      bytes: image.data.length,
      tookMs: parts.clock.now() - startedAt,
    });
    return image;
  };
  const runMs = parts.estimate.predictMs(work.drawable) ?? 0;
  await parts.loader.load(wanted, lease, { signal: call.signal, runMs });
  const { determinismClass } = parts.catalogue.latest(wanted) ?? wanted;
  const drawn = await parts.executor.run(work, lease, {
    signal: call.signal,
    deadlineAt: call.deadlineAt,
    priority: serviceOf(call.metadata)?.priority ?? priorityName(call.request.priority) ?? 'normal',
    onStep: (step) => observer.onStep?.(step),
    onImage: (rgb) => {
      const image = encode(rgb);
      image.catch(() => {}); // read below, unless a later picture fails first
      encoding.push(image);
    },
  });
  return { ...drawn, determinismClass, encoding };
}

function attemptOf(metadata: Readonly<Record<string, string>>): number {
  const attempt = Number(metadata['x-mesh-attempt'] ?? 1);
  return Number.isInteger(attempt) && attempt >= 1 && attempt <= 1000 ? attempt : 1;
}

function leaseIdOf(metadata: Readonly<Record<string, string>>): bigint | undefined {
  const text = metadata['x-mesh-lease'];
  return text !== undefined && LEASE_ID.test(text) ? BigInt(text) : undefined;
}

/** What a router says its request counts as; undefined for a direct call. */
function serviceOf(metadata: Readonly<Record<string, string>>): Service | undefined {
  const { 'x-mesh-priority': priority, 'x-mesh-tenant': tenant, 'x-mesh-cost-ms': cost } = metadata;
  const costMs = Number(cost);
  const known = PRIORITIES.find((each) => each === priority);
  return known && tenant !== undefined && costMs > 0 && Number.isFinite(costMs) ? { priority: known, tenant, costMs } : undefined;
}

function notReady(): StatusError {
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.ENGINE_NOT_READY,
    message: 'the engine of this node is still starting',
    retryDelayMs: 1000,
  });
}
