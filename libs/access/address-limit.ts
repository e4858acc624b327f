/**
 * A rate for each address, for callers without a name. Bounded: an address that has rested is forgotten,
 * and when there are too many at once the one that was heard of longest ago is. A crowd behind one
 * address counts as one, so this is a brake, no fairness. Pure: time comes in as an argument.
 */
import { type Rate, TokenBucket } from './token-bucket.js';

const MAX_ADDRESS_COUNT = 10_000;

export class AddressLimit {
  readonly #buckets = new Map<string, TokenBucket>();

  constructor(private readonly rate: Rate) {}

  /** Takes one and returns 0, or the milliseconds to wait. */
  take(peer: string, nowMs: number): number {
    const address = hostOf(peer);
    const bucket = this.#buckets.get(address) ?? new TokenBucket(this.rate, nowMs);
    this.#buckets.delete(address); // to the end: the order is by last use
    this.#buckets.set(address, bucket);
    if (this.#buckets.size > MAX_ADDRESS_COUNT) this.#forgetOldest(nowMs);
    const waitMs = bucket.waitMs(1, nowMs);
    if (waitMs === 0) bucket.charge(1, nowMs);
    return waitMs;
  }

  #forgetOldest(nowMs: number): void {
    const oldest = this.#buckets.keys().next();
    if (!oldest.done) this.#buckets.delete(oldest.value);
    for (const [address, bucket] of this.#buckets) {
      if (!bucket.isFull(nowMs)) break;
      this.#buckets.delete(address);
    }
  }
}

/** "10.0.0.7:50312" and "[::1]:50312" without the port: every connection has another. */
function hostOf(peer: string): string {
  return peer.replace(/:\d+$/, '');
}
