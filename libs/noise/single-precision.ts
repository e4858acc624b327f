/**
 * log, sin and cos as a vectorised float32 build of torch computes them: Cephes' single-precision
 * polynomials, every operation rounded to float32, a multiplication and the addition after it fused
 * where the compiler fuses them. The last bit of a picture's noise depends on these roundings, so
 * Math.log and its like (more exact) will not do.
 */

const round = Math.fround;

/** a * b + c with one rounding: the product of two float32 is exact in float64. */
const fused = (a: number, b: number, c: number): number => round(a * b + c);

const horner = (x: number, coefficients: readonly number[]): number =>
  coefficients.reduce((sum, coefficient) => fused(sum, x, coefficient));

const LOG = [
  7.0376836292e-2, -1.151461031e-1, 1.167699874e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1,
  3.3333331174e-1,
].map(round);
const COS = [2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2].map(round);
const SIN = [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1].map(round);
/** ln 2 in two parts, and π/4 in three, so that the reduction of an argument loses no bits. */
const LN2_LOW = round(-2.1219444e-4);
const LN2_HIGH = 0.693359375;
const QUARTER_PI = [0.78515625, 2.4187564849853516e-4, 3.774894977445941e-8].map(round);
const ROOT_HALF = round(Math.SQRT1_2);
const FOUR_OVER_PI = round(4 / Math.PI);

const bits = new Uint32Array(1);
const value = new Float32Array(bits.buffer);

/** Natural logarithm of a normal positive float32. */
export function log32(argument: number): number {
  value[0] = argument;
  const pattern = bits[0] ?? 0;
  let exponent = (pattern >>> 23) - 126;
  bits[0] = (pattern & 0x007fffff) | 0x3f000000; // the fraction, in 0.5..1
  const fraction = value[0] ?? 0;
  let x = round(fraction - 1);
  if (fraction < ROOT_HALF) {
    exponent -= 1;
    x = round(x + fraction);
  }
  const square = round(x * x);
  let y = round(horner(x, LOG) * x);
  y = fused(y, square, round(exponent * LN2_LOW));
  y = fused(-square, 0.5, y);
  return fused(exponent, LN2_HIGH, round(x + y));
}

/** Sine and cosine of a float32 in 0..8192. */
export function sinCos32(angle: number): { sin: number; cos: number } {
  const octant = (Math.trunc(round(angle * FOUR_OVER_PI)) + 1) & ~1;
  let x = angle;
  for (const part of QUARTER_PI) x = fused(-octant, part, x);
  const square = round(x * x);
  const cosine = round(fused(round(horner(square, COS) * square), square, -round(square * 0.5)) + 1);
  const sine = fused(round(horner(square, SIN) * square), x, x);
  const swapped = (octant & 2) !== 0;
  const sinSign = octant & 4 ? -1 : 1;
  const cosSign = (octant - 2) & 4 ? 1 : -1;
  return { sin: sinSign * (swapped ? cosine : sine), cos: cosSign * (swapped ? sine : cosine) };
}
