/**
 * How much of something comes a second, of late? A mean over the last ten whole seconds, kept in ten
 * counts: as cheap with a thousand requests a second as with one. Pure; time comes in as an argument.
 */

const BUCKET_MS = 1000;
const BUCKET_COUNT = 10;

export class RateWindow {
  readonly #amounts = new Array<number>(BUCKET_COUNT).fill(0);
  readonly #startedAt: number;
  /** The second that is filled now. */
  #current: number;

  constructor(nowMs: number) {
    this.#startedAt = nowMs;
    this.#current = Math.floor(nowMs / BUCKET_MS);
  }

  add(amount: number, nowMs: number): void {
    this.#advance(nowMs);
    this.#amounts[this.#current % BUCKET_COUNT] = (this.#amounts[this.#current % BUCKET_COUNT] ?? 0) + amount;
  }

  /** Over the last nine seconds and the one begun, or over its own life while that is shorter. */
  perSecond(nowMs: number): number {
    this.#advance(nowMs);
    const spanMs = (BUCKET_COUNT - 1) * BUCKET_MS + (nowMs % BUCKET_MS);
    const lifeMs = Math.max(BUCKET_MS, nowMs - this.#startedAt);
    return this.#amounts.reduce((sum, amount) => sum + amount, 0) / (Math.min(spanMs, lifeMs) / 1000);
  }

  #advance(nowMs: number): void {
    const second = Math.floor(nowMs / BUCKET_MS);
    const passed = Math.min(BUCKET_COUNT, second - this.#current);
    for (let i = 1; i <= passed; i++) this.#amounts[(this.#current + i) % BUCKET_COUNT] = 0;
    this.#current = Math.max(this.#current, second);
  }
}
