/**
 * When is a running request given up? A request that takes many times its prediction is stuck or
 * starved, and whoever waits is served sooner by another node. The caller's own deadline binds as well.
 */

export interface ExecutionLimits {
  /** A request may take this many times its prediction. */
  readonly factor: number;
  /** Never given up sooner, whatever was predicted; milliseconds. */
  readonly floorMs: number;
  /** Never allowed longer; milliseconds. Also the limit while nothing can be predicted. */
  readonly capMs: number;
}

/** clamp(factor × predicted, floor, cap), in milliseconds. */
export function allowedExecutionMs(predictedMs: number | undefined, limits: ExecutionLimits): number {
  if (predictedMs === undefined) return limits.capMs;
  return Math.min(limits.capMs, Math.max(limits.floorMs, limits.factor * predictedMs));
}
