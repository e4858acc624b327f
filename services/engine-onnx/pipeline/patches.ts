/**
 * Between latents [channels, rows, columns] and tokens: every 2 by 2 patch is one token, which holds
 * (row in patch, column in patch, channel), padded at the end to a multiple of 32 tokens.
 */

/** Sequences of this family come in multiples of it. */
export const SEQUENCE_MULTIPLE = 32;
export const PATCH_SIDE = 2;

export interface LatentGrid {
  readonly channels: number;
  readonly rows: number;
  readonly columns: number;
}

export function padded(tokenCount: number): number {
  return Math.ceil(tokenCount / SEQUENCE_MULTIPLE) * SEQUENCE_MULTIPLE;
}

export function tokenCountOf({ rows, columns }: LatentGrid): number {
  return (rows / PATCH_SIDE) * (columns / PATCH_SIDE);
}

/** Padding is zero. */
export function toTokens(latents: Float32Array, grid: LatentGrid): Float32Array {
  const tokens = new Float32Array(padded(tokenCountOf(grid)) * PATCH_SIDE * PATCH_SIDE * grid.channels);
  eachElement(grid, (inTokens, inLatents) => {
    tokens[inTokens] = latents[inLatents] ?? 0;
  });
  return tokens;
}

export function fromTokens(tokens: Float32Array, grid: LatentGrid): Float32Array {
  const latents = new Float32Array(grid.channels * grid.rows * grid.columns);
  eachElement(grid, (inTokens, inLatents) => {
    latents[inLatents] = tokens[inTokens] ?? 0;
  });
  return latents;
}

function eachElement({ channels, rows, columns }: LatentGrid, visit: (inTokens: number, inLatents: number) => void): void {
  let inTokens = 0;
  for (let top = 0; top < rows; top += PATCH_SIDE) {
    for (let left = 0; left < columns; left += PATCH_SIDE) {
      for (let a = 0; a < PATCH_SIDE; a++) {
        for (let b = 0; b < PATCH_SIDE; b++) {
          for (let c = 0; c < channels; c++) visit(inTokens++, (c * rows + top + a) * columns + left + b);
        }
      }
    }
  }
}
