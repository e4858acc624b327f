/**
 * How long will a request take here? Diffusion is regular: the time is close to proportional to
 * steps × pixels × images, so one learned number is enough to plan a slot. An exponentially weighted
 * mean follows slow changes (a hot GPU); a single sample moves it by a factor of two at most, so that
 * one stall does not ruin the next predictions.
 *
 * Not for comparing nodes: routers keep their own estimate per node.
 */

export interface Cost {
  readonly width: number;
  readonly height: number;
  readonly steps: number;
  readonly imageCount: number;
}

export interface Sample {
  readonly tookMs: number;
  /** Mean time of one step. */
  readonly stepMs: number;
  /** From the last step to the finished picture. */
  readonly tailMs: number;
}

const WEIGHT = 0.2;
const MAX_CHANGE = 2;

export class CostEstimate {
  #msPerUnit: number | undefined;
  #stepMsPerMegapixel: number | undefined;
  #tailMsPerMegapixel: number | undefined;
  #sampleCount = 0;

  /** Milliseconds; undefined before anything has run. */
  predictMs(cost: Cost): number | undefined {
    return this.#msPerUnit === undefined ? undefined : this.#msPerUnit * units(cost);
  }

  /** What one step usually takes at this size, milliseconds; undefined before anything has run. */
  usualStepMs(cost: Cost): number | undefined {
    return this.#stepMsPerMegapixel === undefined ? undefined : this.#stepMsPerMegapixel * megapixels(cost);
  }

  /** What usually follows the last step (decoding), milliseconds. */
  usualTailMs(cost: Cost): number {
    return (this.#tailMsPerMegapixel ?? 0) * megapixels(cost);
  }

  /** A guess from an unusual request, such as a canary: used until the first real one. */
  guess(cost: Cost, tookMs: number): void {
    if (this.#sampleCount === 0) this.#blend(cost, { tookMs, stepMs: tookMs / (cost.steps * cost.imageCount), tailMs: 0 });
  }

  /** A request ran to its end. */
  learn(cost: Cost, sample: Sample): void {
    // The guess is not blended in: a canary is far from a real request.
    if (this.#sampleCount === 0) this.#msPerUnit = this.#stepMsPerMegapixel = this.#tailMsPerMegapixel = undefined;
    this.#sampleCount++;
    this.#blend(cost, sample);
  }

  #blend(cost: Cost, { tookMs, stepMs, tailMs }: Sample): void {
    // A plain mean first, so that a cold first picture is soon outvoted.
    const weight = Math.max(WEIGHT, 1 / Math.max(1, this.#sampleCount));
    this.#msPerUnit = follow(this.#msPerUnit, tookMs / units(cost), weight);
    this.#stepMsPerMegapixel = follow(this.#stepMsPerMegapixel, stepMs / megapixels(cost), weight);
    this.#tailMsPerMegapixel = follow(this.#tailMsPerMegapixel, tailMs / megapixels(cost), weight);
  }
}

function follow(mean: number | undefined, sample: number, weight: number): number {
  if (mean === undefined || mean === 0) return sample;
  const bounded = Math.min(mean * MAX_CHANGE, Math.max(mean / MAX_CHANGE, sample));
  return mean + weight * (bounded - mean);
}

function megapixels({ width, height }: Cost): number {
  return (width * height) / 1e6;
}

function units(cost: Cost): number {
  return cost.steps * cost.imageCount * megapixels(cost);
}
