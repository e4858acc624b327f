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

/** Sizes remembered of a node and model, the latest used; a caller chooses them, so they are bounded. */
const MAX_SIZE_COUNT = 64;
/** The fleet's rate is worked out anew after an observation of every so many of its nodes. */
const RENEWALS_PER_ROUND = 16;

interface Estimate {
  msPerTflop: number;
  count: number;
  /** Measured over predicted, smoothed. */
  ratio: number;
}

/** One node with one model. */
interface NodeEstimate extends Estimate {
  /** Small sizes are dominated by fixed costs. From the longest unused on. */
  readonly sizes: Map<string, Estimate>;
}

/** All nodes with one model. */
interface Fleet {
  readonly nodes: Map<string, NodeEstimate>;
  /** Over all nodes, by size: what is promised before a node is chosen. */
  readonly sizes: Map<string, Estimate>;
  /** Median of the nodes. */
  msPerTflop: number;
  observedSince: number;
}

export class CostModel {
  readonly #fleets = new Map<string, Fleet>();
  readonly #priorMsPerTflop: number;

  constructor(options: CostModelOptions) {
    this.#priorMsPerTflop = options.priorMs / workTflop(REFERENCE);
  }

  /** Milliseconds of GPU time. */
  predictMs(nodeId: string, work: Work): number {
    return this.predictor(work)(nodeId);
  }

  /** By node id: for whoever asks about many nodes in one turn. */
  predictor(work: Work): (nodeId: string) => number {
    const [nodes, key, tflop] = [this.#fleets.get(work.model)?.nodes, sizeKey(work), workTflop(work)];
    const typical = this.#fleetMsPerTflop(work.model);
    return (nodeId) => {
      const node = nodes?.get(nodeId);
      return ((node?.sizes.get(key) ?? node)?.msPerTflop ?? typical) * tflop;
    };
  }

  /** The typical node's time: for promises made before a node is chosen. */
  predictAnyMs(work: Work): number {
    const usual = this.#fleets.get(work.model)?.sizes.get(sizeKey(work));
    return (usual?.msPerTflop ?? this.#fleetMsPerTflop(work.model)) * workTflop(work);
  }

  /** Learns from a finished request. Impossible figures are ignored. */
  observe(nodeId: string, work: Work, actualMs: number): void {
    if (!(actualMs > 0) || !Number.isFinite(actualMs)) return;
    const rate = actualMs / workTflop(work);
    const fleet = this.#fleetOf(work.model);
    const node = fleet.nodes.get(nodeId);
    if (node) learn(node, rate);
    const { sizes } = node ?? newNode(fleet, nodeId, rate);
    learnSize(sizes, sizeKey(work), rate);
    learnSize(fleet.sizes, sizeKey(work), rate);
    fleet.observedSince++;
  }

  /** Whether predictions rest on anything seen. */
  knows(model: string): boolean {
    return this.#fleets.has(model);
  }

  /** Measured over predicted of recent requests; 1 is as predicted. */
  ratio(nodeId: string, model: string): number {
    return this.#fleets.get(model)?.nodes.get(nodeId)?.ratio ?? 1;
  }

  forget(nodeId: string): void {
    for (const [model, fleet] of this.#fleets) {
      fleet.nodes.delete(nodeId);
      if (fleet.nodes.size === 0) this.#fleets.delete(model);
    }
  }

  #fleetOf(model: string): Fleet {
    const known = this.#fleets.get(model);
    if (known) return known;
    const fleet: Fleet = { nodes: new Map(), sizes: new Map(), msPerTflop: this.#priorMsPerTflop, observedSince: 0 };
    this.#fleets.set(model, fleet);
    return fleet;
  }

  /** Asked for every request; the median of a large fleet is not taken every time. */
  #fleetMsPerTflop(model: string): number {
    const fleet = this.#fleets.get(model);
    if (!fleet) return this.#priorMsPerTflop;
    if (fleet.observedSince > fleet.nodes.size / RENEWALS_PER_ROUND) {
      fleet.observedSince = 0;
      const rates = [...fleet.nodes.values()].map((node) => node.msPerTflop).sort((a, b) => a - b);
      fleet.msPerTflop = rates[Math.floor(rates.length / 2)] ?? this.#priorMsPerTflop;
    }
    return fleet.msPerTflop;
  }
}

function newNode(fleet: Fleet, nodeId: string, msPerTflop: number): NodeEstimate {
  const node: NodeEstimate = { msPerTflop, count: 1, ratio: 1, sizes: new Map() };
  fleet.nodes.set(nodeId, node);
  return node;
}

function learnSize(sizes: Map<string, Estimate>, key: string, rate: number): void {
  const size = sizes.get(key) ?? { msPerTflop: rate, count: 0, ratio: 1 };
  learn(size, rate);
  sizes.delete(key);
  sizes.set(key, size);
  for (const oldest of sizes.keys()) if (sizes.size > MAX_SIZE_COUNT) sizes.delete(oldest);
}

function learn(known: Estimate, rate: number): void {
  const surprise = rate / known.msPerTflop;
  known.ratio += LEARNING_RATIO * (surprise - known.ratio);
  const clipped = known.count < TRUSTED_COUNT ? surprise : Math.min(Math.max(surprise, 1 / MAX_SURPRISE_RATIO), MAX_SURPRISE_RATIO);
  known.msPerTflop *= 1 + LEARNING_RATIO * (clipped - 1);
  known.count++;
}

function sizeKey(work: Work): string {
  return `${work.width}x${work.height}x${work.steps}`;
}
