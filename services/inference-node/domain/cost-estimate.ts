/**
 * How long will a request take here? Diffusion is regular: the time is close to proportional to
 * steps × pixels × images, so one learned number is enough to plan a slot. An exponentially weighted
 * mean follows slow changes (a hot GPU); a single sample moves it by a factor of two at most, so that
 * one stall does not ruin the next predictions.
 *
 * Not for comparing nodes: routers keep their own estimate per node.
 */

export interface Cost {
  readonly model: string;
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

/** Of one model. */
interface Rates {
  msPerUnit: number;
  stepMsPerMegapixel: number;
  tailMsPerMegapixel: number;
  /** 0 for a guess. */
  sampleCount: number;
}

export class CostEstimate {
  readonly #models = new Map<string, Rates>();

  /** Milliseconds; undefined before anything has run. */
  predictMs(cost: Cost): number | undefined {
    const rates = this.#models.get(cost.model);
    return rates && rates.msPerUnit * units(cost);
  }

  /** What one step usually takes at this size, milliseconds; undefined before anything has run. */
  usualStepMs(cost: Cost): number | undefined {
    const rates = this.#models.get(cost.model);
    return rates && rates.stepMsPerMegapixel * megapixels(cost);
  }

  /** What usually follows the last step (decoding), milliseconds. */
  usualTailMs(cost: Cost): number {
    return (this.#models.get(cost.model)?.tailMsPerMegapixel ?? 0) * megapixels(cost);
  }

  /** A guess from an unusual request, such as a canary: used until the first real one. */
  guess(cost: Cost, tookMs: number): void {
    const known = this.#models.get(cost.model);
    const sample = { tookMs, stepMs: tookMs / (cost.steps * cost.imageCount), tailMs: 0 };
    if (!known || known.sampleCount === 0) this.#models.set(cost.model, blended(known, cost, sample));
  }

  /** A request ran to its end. */
  learn(cost: Cost, sample: Sample): void {
    const known = this.#models.get(cost.model);
    // The guess is not blended in: a canary is far from a real request.
    const { sampleCount, ...rates } = blended(known && known.sampleCount > 0 ? known : undefined, cost, sample);
    this.#models.set(cost.model, { ...rates, sampleCount: sampleCount + 1 });
  }
}

function blended(known: Rates | undefined, cost: Cost, { tookMs, stepMs, tailMs }: Sample): Rates {
  const sampleCount = known?.sampleCount ?? 0;
  // A plain mean first, so that a cold first picture is soon outvoted.
  const weight = Math.max(WEIGHT, 1 / (sampleCount + 1));
  return {
    msPerUnit: follow(known?.msPerUnit, tookMs / units(cost), weight),
    stepMsPerMegapixel: follow(known?.stepMsPerMegapixel, stepMs / megapixels(cost), weight),
    tailMsPerMegapixel: follow(known?.tailMsPerMegapixel, tailMs / megapixels(cost), weight),
    sampleCount,
  };
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
