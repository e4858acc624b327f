/**
 * A rate with bursts: tokens drip in at `perSec` up to `capacity`, and a request may start while what it
 * asks for is there. Work that was done elsewhere cannot be refused: the bucket goes into debt for it, by a
 * minute's worth at most, and pays it back first. Pure: time comes in as an argument, and time that
 * stands still or runs backwards adds nothing.
 */
export interface Rate {
  readonly perSec: number;
  /** What may be taken at once after a rest. */
  readonly capacity: number;
}

const MAX_DEBT_SEC = 60;

export class TokenBucket {
  #level: number;
  #filledAt: number;
  #rate: Rate;

  constructor(rate: Rate, nowMs: number) {
    this.#rate = rate;
    this.#level = rate.capacity;
    this.#filledAt = nowMs;
  }

  /** A new rate from now on; what was used up stays so. */
  retune(rate: Rate, nowMs: number): void {
    this.#fill(nowMs);
    this.#rate = rate;
    this.#level = Math.min(this.#level, rate.capacity);
  }

  /** Milliseconds until `amount` is there, 0 when it is. More than the bucket holds is there when the bucket is full. */
  waitMs(amount: number, nowMs: number): number {
    this.#fill(nowMs);
    const missing = Math.min(amount, this.#rate.capacity) - this.#level;
    // Rounding must not leave a caller who waited as told a hair short.
    return missing <= 1e-9 ? 0 : Math.ceil((missing / this.#rate.perSec) * 1000);
  }

  /** Takes it, there or not; a negative amount is given back. */
  charge(amount: number, nowMs: number): void {
    this.#fill(nowMs);
    this.#level = Math.min(this.#rate.capacity, this.#level - amount);
  }

  /** Takes what was used without asking, as long as the debt is less than a minute's worth. */
  chargeElsewhere(amount: number, nowMs: number): void {
    this.#fill(nowMs);
    const deepest = Math.min(this.#level, -MAX_DEBT_SEC * this.#rate.perSec);
    this.#level = Math.max(deepest, this.#level - amount);
  }

  /** Full: forgetting it loses nothing. */
  isFull(nowMs: number): boolean {
    this.#fill(nowMs);
    return this.#level >= this.#rate.capacity;
  }

  #fill(nowMs: number): void {
    const elapsedMs = nowMs - this.#filledAt;
    this.#filledAt = nowMs;
    if (elapsedMs > 0) this.#level = Math.min(this.#rate.capacity, this.#level + (elapsedMs / 1000) * this.#rate.perSec);
  }
}
