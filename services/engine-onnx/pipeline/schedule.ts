/**
 * Which noise levels a picture passes on its way from 1 to 0: flow matching with a static shift
 * (Esser et al. 2024), as FlowMatchEulerDiscreteScheduler sets them. Rounded to float32 where torch
 * keeps float32.
 */

const TRAIN_TIMESTEPS = 1000;

export interface Step {
  /** What the transformer is told: 0 for pure noise, 1 for a finished picture. */
  readonly time: number;
  /** Change of the noise level over this step; negative. */
  readonly sigmaDelta: number;
}

/** `shift` 1 is linear; larger spends more steps on the rough shape. */
export function eulerSteps(stepCount: number, shift: number): Step[] {
  const sigmas = Array.from({ length: stepCount }, (_, i) => {
    const linear = 1 - i / stepCount;
    return Math.fround((shift * linear) / (1 + (shift - 1) * linear));
  });
  return sigmas.map((sigma, i) => ({
    time: Math.fround((TRAIN_TIMESTEPS - Math.fround(sigma * TRAIN_TIMESTEPS)) / TRAIN_TIMESTEPS),
    sigmaDelta: Math.fround((sigmas[i + 1] ?? 0) - sigma),
  }));
}
