/**
 * Where each token stands, as rotation tables (RoPE, Su et al. 2021) over three axes: sequence, row,
 * column. Caption tokens stand at (1.., 0, 0); the picture's follow at (after the caption, row,
 * column), so a longer padding of the caption moves the picture; its padding stands at (0, 0, 0).
 */

export interface RotaryConfig {
  readonly theta: number;
  /** How many of a head's dimensions turn with each axis; even numbers. */
  readonly axesDims: readonly number[];
}

export interface RotaryTable {
  /** [tokens, head_dim / 2] */
  readonly cos: Float32Array;
  readonly sin: Float32Array;
}

type Position = readonly [number, number, number];

const ORIGIN: Position = [0, 0, 0];

export function captionTable(config: RotaryConfig, tokenCount: number): RotaryTable {
  return table(
    config,
    Array.from({ length: tokenCount }, (_, i) => [i + 1, 0, 0]),
  );
}

export interface ImageGrid {
  readonly rows: number;
  readonly columns: number;
  /** rows * columns and its padding. */
  readonly paddedCount: number;
  /** With its padding. */
  readonly captionCount: number;
}

export function imageTable(config: RotaryConfig, grid: ImageGrid): RotaryTable {
  const { rows, columns, paddedCount, captionCount } = grid;
  return table(
    config,
    Array.from({ length: paddedCount }, (_, i) => (i < rows * columns ? [captionCount + 1, Math.floor(i / columns), i % columns] : ORIGIN)),
  );
}

function table(config: RotaryConfig, positions: readonly Position[]): RotaryTable {
  // One entry a pair of dimensions: the axis it follows and how fast it turns.
  const turns = config.axesDims.flatMap((dims, axis) =>
    Array.from({ length: dims / 2 }, (_, k) => ({ axis, speed: 1 / config.theta ** ((2 * k) / dims) })),
  );
  const cos = new Float32Array(positions.length * turns.length);
  const sin = new Float32Array(cos.length);
  let at = 0;
  for (const position of positions) {
    for (const { axis, speed } of turns) {
      const angle = Math.fround((position[axis] ?? 0) * speed);
      cos[at] = Math.cos(angle);
      sin[at] = Math.sin(angle);
      at++;
    }
  }
  return { cos, sin };
}
