/**
 * When is a running request given up? A request that takes many times its prediction is stuck or
 * starved, and whoever waits is served sooner by another node. The caller's own deadline binds as well.
 */
import { type Work, workTflop } from './cost-model.js';

export interface ExecutionLimits {
  /** A request may take this many times its prediction. */
  readonly factor: number;
  /** Never given up sooner, whatever was predicted; milliseconds. */
  readonly floorMs: number;
  /**
   * Never allowed longer; milliseconds. Also the limit while nothing can be predicted. For a request of the
   * model's default size: larger ones have more in proportion, or they could never be finished anywhere.
   */
  readonly capMs: number;
}

type Size = Omit<Work, 'model'>;

/** Work in a request over that of one picture with the model's defaults; 1 for whatever is smaller. */
export function sizeRatio(work: Size, defaults: Omit<Size, 'imageCount'>): number {
  return Math.max(1, workTflop(work) / workTflop({ ...defaults, imageCount: 1 }));
}

/** clamp(factor × predicted, floor, cap), in milliseconds. */
export function allowedExecutionMs(predictedMs: number | undefined, sizeRatio: number, limits: ExecutionLimits): number {
  const capMs = sizeRatio * limits.capMs;
  if (predictedMs === undefined) return capMs;
  return Math.min(capMs, Math.max(limits.floorMs, limits.factor * predictedMs));
}
