/**
 * MT19937 (Matsumoto and Nishimura 1998), the generator behind torch's CPU random numbers. Nothing
 * secret may be drawn from it.
 */

const STATE_COUNT = 624;
const MIDDLE = 397;
const TWIST = 0x9908b0df;
const SEED_FACTOR = 1812433253;

export class MersenneTwister {
  readonly #state = new Uint32Array(STATE_COUNT);
  #next = STATE_COUNT;

  /** Only the low 32 bits of `seed` count, as in torch. */
  constructor(seed: bigint) {
    let previous = Number(BigInt.asUintN(32, seed));
    this.#state[0] = previous;
    for (let i = 1; i < STATE_COUNT; i++) {
      previous = (Math.imul(SEED_FACTOR, previous ^ (previous >>> 30)) + i) >>> 0;
      this.#state[i] = previous;
    }
  }

  /** Uniform over 0 to 2^32 - 1. */
  next32(): number {
    if (this.#next === STATE_COUNT) this.#twist();
    let y = this.#state[this.#next++] ?? 0;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return y >>> 0;
  }

  #twist(): void {
    const state = this.#state;
    for (let i = 0; i < STATE_COUNT; i++) {
      const y = ((state[i] ?? 0) & 0x80000000) | ((state[(i + 1) % STATE_COUNT] ?? 0) & 0x7fffffff);
      state[i] = (state[(i + MIDDLE) % STATE_COUNT] ?? 0) ^ (y >>> 1) ^ (y & 1 ? TWIST : 0);
    }
    this.#next = 0;
  }
}
