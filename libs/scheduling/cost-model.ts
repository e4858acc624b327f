/**
 * How long will this request take on that node? Diffusion runs a fixed number of steps, so time is
 * predictable from model, pixels, steps and images. The prediction orders work, places it, bounds it
 * and tells callers when they will be served.
 *
 * The amount of work is the transformer's FLOP count (Z-Image's shape: 30 blocks, width 3840), scaled
 * by what each node was seen to deliver. A node and model never seen before take the median of the
 * nodes that were, then a prior.
 *
 * Predictions follow a node that becomes slow, and so do not show that it is. Its slowness does (pace.ts).
 */
import { medianOf, Pace, paceOf, typicalAfter, usualAfter } from './pace.js';

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
  /** Past this slowness a node looks even slower than it is when a node is chosen. */
  readonly slowRatio: number;
  /** Nodes of the same device should be equally fast. Undefined: it is not known. */
  readonly deviceOf: (nodeId: string) => string | undefined;
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
/** The same over all devices of a mesh. */
const MAX_DEVICE_SIZE_COUNT = 512;
/** A node passed over as slow looks as fast as the rest, but for a tenth, after about this many rounds of requests over the fleet. */
const FORGIVING_ROUNDS = 10;
const FORGIVEN_RATIO = 1.1;
/** The fleet's rate is worked out anew after an observation of every so many of its nodes. */
const RENEWALS_PER_ROUND = 16;

interface Estimate {
  msPerTflop: number;
  count: number;
  /** The same when all is well. */
  usualMsPerTflop: number;
}

/** One node with one model. */
interface NodeEstimate extends Estimate {
  /** Small sizes are dominated by fixed costs. From the longest unused on. */
  readonly sizes: Map<string, Estimate>;
  readonly pace: Pace;
  /** The fleet's `observedCount` when it was observed last. */
  observedAt: number;
  /** One picture of the smallest size it has drawn. */
  smallest: Work;
}

/** All nodes with one model. */
interface Fleet {
  readonly nodes: Map<string, NodeEstimate>;
  /** Over all nodes, by size: what is promised before a node is chosen. */
  readonly sizes: Map<string, Estimate>;
  /** Median of the nodes. */
  msPerTflop: number;
  /** Of the median node. */
  pace: number;
  observedCount: number;
  /** Since its figures were worked out. */
  observedSince: number;
  /** By device and size: what a node of that hardware takes for a TFLOP. */
  readonly typical: Map<string, number>;
}

export class CostModel {
  readonly #fleets = new Map<string, Fleet>();
  readonly #options: CostModelOptions;
  readonly #priorMsPerTflop: number;

  constructor(options: CostModelOptions) {
    this.#options = options;
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

  /**
   * The same for choosing a node: a slow one looks slower still. What is only remembered of it fades while others
   * are asked in its stead: a node that was slow for a moment would never be asked again.
   */
  weigher(work: Work): (nodeId: string) => number {
    const predictMs = this.predictor(work);
    const fleet = this.#fleets.get(work.model);
    const slowFrom = this.fleetPace(work.model) * this.#options.slowRatio;
    const forgivenMs = FORGIVEN_RATIO * this.predictAnyMs(work);
    return (nodeId) => {
      const node = fleet?.nodes.get(nodeId);
      const ms = predictMs(nodeId) * Math.max(1, (node?.pace.now ?? 1) / slowFrom);
      if (!fleet || !node || ms <= forgivenMs) return ms;
      const passedOverRounds = (fleet.observedCount - node.observedAt) / fleet.nodes.size;
      return forgivenMs + (ms - forgivenMs) * 0.5 ** Math.max(0, passedOverRounds / FORGIVING_ROUNDS - 1);
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
    const known = fleet.nodes.get(nodeId);
    if (known) learn(known, rate);
    const node = known ?? newNode(fleet, nodeId, rate, work);
    const key = sizeKey(work);
    node.pace.note(paceOf(actualMs, this.#expected(fleet, nodeId, key, rate) * workTflop(work)));
    learnSize(node.sizes, key, rate);
    learnSize(fleet.sizes, key, rate);
    const device = this.#options.deviceOf(nodeId);
    if (device !== undefined) {
      const typical = typicalAfter(fleet.typical.get(`${device}\n${key}`), rate);
      keepLatest(fleet.typical, `${device}\n${key}`, typical, MAX_DEVICE_SIZE_COUNT);
    }
    if (workTflop({ ...work, imageCount: 1 }) < workTflop(node.smallest)) node.smallest = { ...work, imageCount: 1 };
    fleet.observedSince++;
    node.observedAt = ++fleet.observedCount;
  }

  /** Whether predictions rest on anything seen. */
  knows(model: string): boolean {
    return this.#fleets.has(model);
  }

  /** What recent requests took over what they should take there; 1 is as it should be. */
  pace(nodeId: string, model: string): number {
    return this.#fleets.get(model)?.nodes.get(nodeId)?.pace.now ?? 1;
  }

  /** Its pace over that of the fleet's median node: what makes all of them slower is no node's fault. */
  slowness(nodeId: string, model: string): number {
    return this.pace(nodeId, model) / this.fleetPace(model);
  }

  /** Of the median node; never less than 1, so that those who have got faster make nobody slow. */
  fleetPace(model: string): number {
    const fleet = this.#fleets.get(model);
    if (!fleet) return 1;
    this.#renew(fleet);
    return Math.max(1, fleet.pace);
  }

  /** One picture of the smallest size that it has drawn, and what that should take there. */
  yardstick(nodeId: string, model: string): { work: Work; expectedMs: number } | undefined {
    const fleet = this.#fleets.get(model);
    const work = fleet?.nodes.get(nodeId)?.smallest;
    if (!fleet || !work) return undefined;
    const expectedMs = this.#expected(fleet, nodeId, sizeKey(work), 0) * workTflop(work);
    return expectedMs > 0 ? { work, expectedMs } : undefined;
  }

  /** It may be another than it was: what it took lately counts for nothing any more. */
  judgeAnew(nodeId: string): void {
    for (const fleet of this.#fleets.values()) fleet.nodes.get(nodeId)?.pace.clear();
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
    const fleet: Fleet = {
      nodes: new Map(),
      sizes: new Map(),
      typical: new Map(),
      msPerTflop: this.#priorMsPerTflop,
      pace: 1,
      observedCount: 0,
      observedSince: 0,
    };
    this.#fleets.set(model, fleet);
    return fleet;
  }

  #fleetMsPerTflop(model: string): number {
    const fleet = this.#fleets.get(model);
    if (!fleet) return this.#priorMsPerTflop;
    this.#renew(fleet);
    return fleet.msPerTflop;
  }

  /** Asked for every request; the medians of a large fleet are not taken every time. */
  #renew(fleet: Fleet): void {
    if (fleet.observedSince <= fleet.nodes.size / RENEWALS_PER_ROUND) return;
    fleet.observedSince = 0;
    const nodes = [...fleet.nodes.values()];
    const rates = nodes.map((node) => node.msPerTflop).sort((a, b) => a - b);
    fleet.msPerTflop = rates[Math.floor(rates.length / 2)] ?? this.#priorMsPerTflop;
    fleet.pace = medianOf(nodes.map((node) => node.pace.now)) ?? 1;
  }

  /** What a TFLOP of this size should take there: as usual, or as is typical of its device when that is less. */
  #expected(fleet: Fleet, nodeId: string, size: string, unknown: number): number {
    const usual = fleet.nodes.get(nodeId)?.sizes.get(size)?.usualMsPerTflop ?? unknown;
    return Math.min(usual, fleet.typical.get(`${this.#options.deviceOf(nodeId)}\n${size}`) ?? usual);
  }
}

function newNode(fleet: Fleet, nodeId: string, rate: number, work: Work): NodeEstimate {
  const smallest = { ...work, imageCount: 1 };
  const node: NodeEstimate = {
    msPerTflop: rate,
    usualMsPerTflop: rate,
    count: 1,
    sizes: new Map(),
    pace: new Pace(),
    observedAt: 0,
    smallest,
  };
  fleet.nodes.set(nodeId, node);
  return node;
}

function learnSize(sizes: Map<string, Estimate>, key: string, rate: number): void {
  const size = sizes.get(key) ?? { msPerTflop: rate, usualMsPerTflop: rate, count: 0 };
  learn(size, rate);
  keepLatest(sizes, key, size, MAX_SIZE_COUNT);
}

function keepLatest<Value>(sizes: Map<string, Value>, key: string, value: Value, maxCount: number): void {
  sizes.delete(key);
  sizes.set(key, value);
  for (const oldest of sizes.keys()) if (sizes.size > maxCount) sizes.delete(oldest);
}

function learn(known: Estimate, rate: number): void {
  const surprise = rate / known.msPerTflop;
  const clipped = known.count < TRUSTED_COUNT ? surprise : Math.min(Math.max(surprise, 1 / MAX_SURPRISE_RATIO), MAX_SURPRISE_RATIO);
  known.msPerTflop *= 1 + LEARNING_RATIO * (clipped - 1);
  known.usualMsPerTflop = usualAfter(known.usualMsPerTflop, rate);
  known.count++;
}

function sizeKey(work: Work): string {
  return `${work.width}x${work.height}x${work.steps}`;
}
