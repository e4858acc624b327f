/**
 * How fast do jobs end, over the whole mesh, and how long is one drawn? What the last ones did, so that
 * it is right after a minute whatever nodes and models there are. Pure: time comes in as an argument.
 */

const KEPT_COUNT = 100;
/** Of fewer nothing is said. */
const LEAST_COUNT = 3;
/** After so long without any end nothing is said either. */
const TOO_OLD_MS = 600_000;

export class EndRate {
  readonly #endedAt: number[] = [];
  readonly #drawnMs: number[] = [];

  /** `drawnMs`: undefined for one that was not drawn to its end. */
  ended(nowMs: number, drawnMs: number | undefined): void {
    keep(this.#endedAt, nowMs);
    if (drawnMs !== undefined) keep(this.#drawnMs, drawnMs);
  }

  /** Predicted time until so many have ended; 0: not known. */
  untilMs(count: number, nowMs: number): number {
    const [first = 0] = this.#endedAt;
    const last = this.#endedAt.at(-1) ?? 0;
    if (this.#endedAt.length < LEAST_COUNT || nowMs - last > TOO_OLD_MS) return 0;
    // The time since the last end counts as well, so that it grows when nothing ends any more.
    return (count * Math.max(1, nowMs - first)) / (this.#endedAt.length - 1);
  }

  /** Predicted time that one takes to draw; 0: not known. */
  get drawMs(): number {
    if (this.#drawnMs.length < LEAST_COUNT) return 0;
    return this.#drawnMs.reduce((sum, ms) => sum + ms, 0) / this.#drawnMs.length;
  }
}

function keep(list: number[], value: number): void {
  list.push(value);
  if (list.length > KEPT_COUNT) list.shift();
}
