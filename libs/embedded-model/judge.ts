/**
 * Says what a picture of the embedded model shows, by rules on its pixels alone.
 *
 * 1. Background: the median colour of the border (2 % of the shorter side, at least 2 pixels wide); its name is the
 *    nearest palette colour.
 * 2. Object: the pixels whose RGB distance from the background exceeds half of the object's own. The object's own
 *    distance is the mean over the farthest 0.8 % of all pixels; below 30 the picture counts as empty and nothing but
 *    its background is named. Only the largest 4-connected piece counts, so that stray specks move nothing; it must
 *    cover 0.5 % of the picture.
 * 3. Colour: the median colour of the piece without its outermost pixels; its name is the nearest palette colour.
 * 4. Shape: every pixel in the piece's box (one pixel wider each way) gets a share between 0 and 1 by its place on the
 *    line from background colour to object colour. Each outline is fitted to the piece's box, with edges placed to a
 *    fraction of a pixel by those shares, and drawn with 4 x 4 samples a pixel; the shape is the outline with the
 *    best sum of minima over sum of maxima. Outlines keep their proportions: a box whose proportions differ from the
 *    outline's by more than a quarter rules that outline out. A best overlap below 0.6 names no shape.
 * 5. Position: the centre of the box. A column or row is the middle one within 8.5 % of the side from the middle.
 * 6. Size: the longer half side of the box over the picture's shorter side, to the nearest of the three sizes.
 */

export type Point = readonly [x: number, y: number];
export type Colour = readonly [red: number, green: number, blue: number];

/** The parts of scenes.json that the judge reads. Outlines fill the box from -1 to 1; a second outline is a hole. */
export interface Scenes {
  readonly palette: Readonly<Record<string, readonly number[]>>;
  readonly shapes: Readonly<Record<string, readonly (readonly (readonly number[])[])[]>>;
  readonly sizes: Readonly<Record<string, readonly number[]>>;
  readonly positions: Readonly<Record<string, readonly number[]>>;
}

export interface Verdict {
  readonly background: string;
  /** undefined where the picture shows nothing, or nothing that a rule recognises. */
  readonly colour: string | undefined;
  readonly shape: string | undefined;
  readonly position: string | undefined;
  readonly size: string | undefined;
}

const BORDER_SHARE = 0.02;
const FARTHEST_SHARE = 0.008;
const LEAST_DISTANCE = 30;
const LEAST_AREA_SHARE = 0.005;
const PROPORTION_TOLERANCE = 1.25;
const LEAST_OVERLAP = 0.6;
const MIDDLE_SHARE = 0.085;
const SAMPLES = 4;

interface Box {
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
}

function median(values: number[]): number {
  values.sort((a, b) => a - b);
  return values[values.length >> 1] ?? 0;
}

function medianColour(rgb: Uint8Array, pixels: readonly number[]): Colour {
  const channel = (offset: number): number => median(pixels.map((p) => rgb[p * 3 + offset] ?? 0));
  return [channel(0), channel(1), channel(2)];
}

function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Math.hypot((a[0] ?? 0) - (b[0] ?? 0), (a[1] ?? 0) - (b[1] ?? 0), (a[2] ?? 0) - (b[2] ?? 0));
}

function nearestName(palette: Scenes['palette'], colour: Colour): string {
  let best = '';
  let least = Infinity;
  for (const [name, entry] of Object.entries(palette)) {
    const d = distance(entry, colour);
    if (d < least) {
      least = d;
      best = name;
    }
  }
  return best;
}

function borderPixels(width: number, height: number): number[] {
  const thickness = Math.max(2, Math.round(Math.min(width, height) * BORDER_SHARE));
  const pixels: number[] = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (x < thickness || y < thickness || x >= width - thickness || y >= height - thickness) {
        pixels.push(y * width + x);
      }
    }
  }
  return pixels;
}

/** The largest 4-connected set of marked pixels. */
function largestPiece(marked: Uint8Array, width: number): number[] {
  const seen = new Uint8Array(marked.length);
  let largest: number[] = [];
  for (let start = 0; start < marked.length; start++) {
    if (!marked[start] || seen[start]) continue;
    seen[start] = 1;
    const piece = [start];
    for (let next = 0; next < piece.length; next++) {
      const p = piece[next] ?? 0;
      const x = p % width;
      const neighbours = [p - width, p + width];
      if (x > 0) neighbours.push(p - 1);
      if (x < width - 1) neighbours.push(p + 1);
      for (const q of neighbours) {
        if (q >= 0 && q < marked.length && marked[q] && !seen[q]) {
          seen[q] = 1;
          piece.push(q);
        }
      }
    }
    if (piece.length > largest.length) largest = piece;
  }
  return largest;
}

function withoutRim(piece: readonly number[], width: number): number[] {
  const inside = new Set(piece);
  const core = piece.filter((p) => inside.has(p - 1) && inside.has(p + 1) && inside.has(p - width) && inside.has(p + width));
  return core.length >= 10 ? core : [...piece];
}

/** How far the piece reaches, to a fraction of a pixel: the strongest share of the next row or column counts in part. */
function fractionalBox(piece: readonly number[], share: (x: number, y: number) => number, width: number, height: number): Box {
  let left = width;
  let top = height;
  let right = -1;
  let bottom = -1;
  for (const p of piece) {
    const x = p % width;
    const y = (p - x) / width;
    left = Math.min(left, x);
    right = Math.max(right, x);
    top = Math.min(top, y);
    bottom = Math.max(bottom, y);
  }
  const column = (x: number): number => {
    let most = 0;
    for (let y = top; y <= bottom; y++) most = Math.max(most, share(x, y));
    return most;
  };
  const row = (y: number): number => {
    let most = 0;
    for (let x = left; x <= right; x++) most = Math.max(most, share(x, y));
    return most;
  };
  return {
    left: left + 1 - column(left) - (left > 0 ? column(left - 1) : 0),
    right: right + column(right) + (right < width - 1 ? column(right + 1) : 0),
    top: top + 1 - row(top) - (top > 0 ? row(top - 1) : 0),
    bottom: bottom + row(bottom) + (bottom < height - 1 ? row(bottom + 1) : 0),
  };
}

/** Where the horizontal line at y crosses the outlines, in order: filled between the 1st and 2nd, 3rd and 4th, ... */
function crossings(outlines: readonly (readonly (readonly number[])[])[], y: number): number[] {
  const found: number[] = [];
  for (const outline of outlines) {
    for (let k = 0; k < outline.length; k++) {
      const [ax = 0, ay = 0] = outline[k] ?? [];
      const [bx = 0, by = 0] = outline[(k + 1) % outline.length] ?? [];
      if (ay <= y !== by <= y) found.push(ax + ((y - ay) / (by - ay)) * (bx - ax));
    }
  }
  return found.sort((a, b) => a - b);
}

function halfSides(outlines: readonly (readonly (readonly number[])[])[]): Point {
  let x = 0;
  let y = 0;
  for (const point of outlines[0] ?? []) {
    x = Math.max(x, Math.abs(point[0] ?? 0));
    y = Math.max(y, Math.abs(point[1] ?? 0));
  }
  return [x, y];
}

/** Sum of minima over sum of maxima of the picture's shares and the outline fitted to the box. */
function overlap(
  outlines: readonly (readonly (readonly number[])[])[],
  box: Box,
  share: (x: number, y: number) => number,
  width: number,
  height: number,
): number {
  const [halfX, halfY] = halfSides(outlines);
  const scaleX = (box.right - box.left) / 2 / halfX;
  const scaleY = (box.bottom - box.top) / 2 / halfY;
  const proportion = scaleX / scaleY;
  if (proportion > PROPORTION_TOLERANCE || proportion < 1 / PROPORTION_TOLERANCE) return 0;
  const middleX = (box.left + box.right) / 2;
  const middleY = (box.top + box.bottom) / 2;
  const firstX = Math.max(0, Math.floor(box.left) - 1);
  const lastX = Math.min(width - 1, Math.ceil(box.right));
  const firstY = Math.max(0, Math.floor(box.top) - 1);
  const lastY = Math.min(height - 1, Math.ceil(box.bottom));
  let minima = 0;
  let maxima = 0;
  for (let y = firstY; y <= lastY; y++) {
    const drawn = new Float64Array(lastX - firstX + 1);
    for (let sample = 0; sample < SAMPLES; sample++) {
      const line = crossings(outlines, (y + (sample + 0.5) / SAMPLES - middleY) / scaleY);
      for (let k = 0; k + 1 < line.length; k += 2) {
        const from = (line[k] ?? 0) * scaleX + middleX;
        const to = (line[k + 1] ?? 0) * scaleX + middleX;
        for (let x = firstX; x <= lastX; x++) {
          const covered = Math.min(to, x + 1) - Math.max(from, x);
          if (covered > 0) drawn[x - firstX] = (drawn[x - firstX] ?? 0) + covered / SAMPLES;
        }
      }
    }
    for (let x = firstX; x <= lastX; x++) {
      const seen = share(x, y);
      const template = drawn[x - firstX] ?? 0;
      minima += Math.min(seen, template);
      maxima += Math.max(seen, template);
    }
  }
  return maxima > 0 ? minima / maxima : 0;
}

export function judge(rgb: Uint8Array, width: number, height: number, scenes: Scenes): Verdict {
  const count = width * height;
  if (rgb.length !== count * 3) throw new RangeError(`${rgb.length} bytes are not a ${width}x${height} RGB picture`);
  const back = medianColour(rgb, borderPixels(width, height));
  const background = nearestName(scenes.palette, back);
  const nothing: Verdict = { background, colour: undefined, shape: undefined, position: undefined, size: undefined };

  const far = new Float64Array(count);
  for (let p = 0; p < count; p++) far[p] = distance(rgb.subarray(p * 3, p * 3 + 3), back);
  const farthest = Float64Array.from(far)
    .sort()
    .subarray(-Math.max(1, Math.round(count * FARTHEST_SHARE)));
  const reach = farthest.reduce((sum, d) => sum + d, 0) / farthest.length;
  if (reach < LEAST_DISTANCE) return nothing;

  const marked = Uint8Array.from(far, (d) => (d > reach / 2 ? 1 : 0));
  const piece = largestPiece(marked, width);
  if (piece.length < count * LEAST_AREA_SHARE) return nothing;
  const front = medianColour(rgb, withoutRim(piece, width));
  const colour = nearestName(scenes.palette, front);

  const line = [front[0] - back[0], front[1] - back[1], front[2] - back[2]] as const;
  const length2 = line[0] ** 2 + line[1] ** 2 + line[2] ** 2;
  const share = (x: number, y: number): number => {
    const p = (y * width + x) * 3;
    const along = ((rgb[p] ?? 0) - back[0]) * line[0] + ((rgb[p + 1] ?? 0) - back[1]) * line[1] + ((rgb[p + 2] ?? 0) - back[2]) * line[2];
    return Math.min(1, Math.max(0, along / length2));
  };
  const box = fractionalBox(piece, share, width, height);

  let shape: string | undefined;
  let most = LEAST_OVERLAP;
  for (const [name, outlines] of Object.entries(scenes.shapes)) {
    const score = overlap(outlines, box, share, width, height);
    if (score > most) {
      most = score;
      shape = name;
    }
  }

  const step = (middle: number): number => (middle < 0.5 - MIDDLE_SHARE ? -1 : middle > 0.5 + MIDDLE_SHARE ? 1 : 0);
  const column = step((box.left + box.right) / 2 / width);
  const rank = step((box.top + box.bottom) / 2 / height);
  const position = Object.entries(scenes.positions).find(([, [x, y]]) => x === column && y === rank)?.[0];

  const half = Math.max(box.right - box.left, box.bottom - box.top) / 2 / Math.min(width, height);
  let size: string | undefined;
  let least = Infinity;
  for (const [name, range] of Object.entries(scenes.sizes)) {
    const off = Math.abs(half - ((range[0] ?? 0) + (range[1] ?? 0)) / 2);
    if (off < least) {
      least = off;
      size = name;
    }
  }
  return { background, colour, shape, position, size };
}
