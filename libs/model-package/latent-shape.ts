/** How much noise a picture needs: the VAE of this family has 16 channels and shrinks each side by 8. */

export const LATENT_CHANNELS = 16;
export const PIXELS_PER_LATENT = 8;

export interface LatentShape {
  readonly dims: readonly [1, number, number, number];
  readonly elementCount: number;
}

/** For sides that are multiples of 8. */
export function latentShape(widthPx: number, heightPx: number): LatentShape {
  const rows = heightPx / PIXELS_PER_LATENT;
  const columns = widthPx / PIXELS_PER_LATENT;
  return { dims: [1, LATENT_CHANNELS, rows, columns], elementCount: LATENT_CHANNELS * rows * columns };
}
