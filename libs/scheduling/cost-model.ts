/**
 * How long will this request take on that node? Diffusion runs a fixed number of steps, so time is
 * predictable from model, pixels, steps and images. The prediction orders work, places it, bounds it
 * and tells callers when they will be served.
 *
 * The amount of work is the transformer's FLOP count (Z-Image's shape: 30 blocks, width 3840), scaled
 * by what each node was seen to deliver. A node and model never seen before take the median of the
 * nodes that were, then a prior.
 */

export interface Work {
  readonly model: string;
  /** Pixels. */
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  readonly imageCount: number;
  readonly guidanceScale: number;
}

export interface CostModelOptions {
  /** Assumed time of a 1024², 8-step picture on hardware never seen, milliseconds. */
  readonly priorMs: number;
}

/** Weight of a new observation; ten requests forget nine tenths of the past. */
const LEARNING_RATIO = 0.2;
/** One observation moves an estimate at most this far, so that one stall does not poison it. */
const MAX_SURPRISE_RATIO = 3;
/** Observations after which surprises are clipped. */
const TRUSTED_COUNT = 3;
/** A usual caption, padded to its multiple of 32. */
const CAPTION_TOKENS = 96;
const REFERENCE = { width: 1024, height: 1024, steps: 8, imageCount: 1, guidanceScale: 0 };

/** Work in TFLOP: token count with its padding, linear and attention part, VAE decode by pixels. */
export function workTflop(work: Omit<Work, 'model'>): number {
  const imageTokens = Math.ceil(((work.width / 16) * (work.height / 16)) / 32) * 32;
  const tokens = imageTokens + CAPTION_TOKENS;
  // 30 blocks see picture and caption together; two refiners see each alone.
  const linear = 353.9e6 * (30 * tokens + 2 * imageTokens + 2 * CAPTION_TOKENS);
  const attention = 4 * 3840 * (30 * tokens ** 2 + 2 * imageTokens ** 2 + 2 * CAPTION_TOKENS ** 2);
  const step = linear + attention;
  const decode = 10.5e12 * ((work.width * work.height) / (1024 * 1024));
  const passes = work.guidanceScale > 0 ? 2 : 1;
  return (work.imageCount * (work.steps * passes * step + decode)) / 1e12;
}

interface Estimate {
  msPerTflop: number;
  count: number;
  /** Measured over predicted, smoothed. */
  ratio: number;
}

export class CostModel {
  /** By node and model, and, finer, by size as well: small sizes are dominated by fixed costs. */
  readonly #estimates = new Map<string, Estimate>();
  readonly #priorMsPerTflop: number;

  constructor(options: CostModelOptions) {
    this.#priorMsPerTflop = options.priorMs / workTflop(REFERENCE);
  }

  /** Milliseconds of GPU time. */
  predictMs(nodeId: string, work: Work): number {
    const own = this.#estimates.get(sizeKey(nodeId, work)) ?? this.#estimates.get(nodeKey(nodeId, work.model));
    return (own?.msPerTflop ?? this.#fleetMsPerTflop(work.model)) * workTflop(work);
  }

  /** The typical node's time: for promises made before a node is chosen. */
  predictAnyMs(work: Work): number {
    return this.#fleetMsPerTflop(work.model) * workTflop(work);
  }

  /** Learns from a finished request. Impossible figures are ignored. */
  observe(nodeId: string, work: Work, actualMs: number): void {
    if (!(actualMs > 0) || !Number.isFinite(actualMs)) return;
    const rate = actualMs / workTflop(work);
    this.#learn(sizeKey(nodeId, work), rate);
    this.#learn(nodeKey(nodeId, work.model), rate);
  }

  /** Measured over predicted of recent requests; 1 is as predicted. */
  ratio(nodeId: string, model: string): number {
    return this.#estimates.get(nodeKey(nodeId, model))?.ratio ?? 1;
  }

  forget(nodeId: string): void {
    for (const key of this.#estimates.keys()) if (key.startsWith(`${nodeId}\n`)) this.#estimates.delete(key);
  }

  #learn(key: string, rate: number): void {
    const known = this.#estimates.get(key);
    if (!known) {
      this.#estimates.set(key, { msPerTflop: rate, count: 1, ratio: 1 });
      return;
    }
    const surprise = rate / known.msPerTflop;
    known.ratio += LEARNING_RATIO * (surprise - known.ratio);
    const clipped = known.count < TRUSTED_COUNT ? surprise : Math.min(Math.max(surprise, 1 / MAX_SURPRISE_RATIO), MAX_SURPRISE_RATIO);
    known.msPerTflop *= 1 + LEARNING_RATIO * (clipped - 1);
    known.count++;
  }

  #fleetMsPerTflop(model: string): number {
    const rates: number[] = [];
    for (const [key, estimate] of this.#estimates) if (key.endsWith(`\n${model}`)) rates.push(estimate.msPerTflop);
    rates.sort((a, b) => a - b);
    return rates[Math.floor(rates.length / 2)] ?? this.#priorMsPerTflop;
  }
}

function nodeKey(nodeId: string, model: string): string {
  return `${nodeId}\n${model}`;
}

function sizeKey(nodeId: string, work: Work): string {
  return `${nodeId}\n${work.model}\n${work.width}x${work.height}x${work.steps}`;
}
