/**
 * Whose turn is it, so that everyone gets the same GPU time? Start-time fair queueing (Goyal, Vin and
 * Cheng, SIGCOMM 1996): virtual time is the GPU time that each of those who wait has been given. A
 * tenant's turn comes at its tag; being served moves the tag on by what the service cost. Who comes
 * back after a pause starts at the present: idle time is neither saved up nor held against anyone.
 *
 * Several routers keep the same virtual time by telling this clock of services elsewhere as well.
 */

/** Tags that are past are dropped when there are this many, and again when what was left has doubled. */
const REMEMBERED_COUNT = 1000;

export class FairClock {
  #nowMs = 0;
  /** By tenant: virtual time up to which it has been served. */
  readonly #servedUntil = new Map<string, number>();
  #forgetAtCount = REMEMBERED_COUNT;

  /** When a tenant that begins to wait now has its turn, in virtual milliseconds. */
  tagOf(tenant: string): number {
    return Math.max(this.#nowMs, this.#servedUntil.get(tenant) ?? 0);
  }

  /** How far ahead of its fair share a tenant with this tag is; negative: behind. */
  leadMs(tag: number): number {
    return tag - this.#nowMs;
  }

  /** `costMs` of GPU time went to `tenant`. Returns its next tag. `tag`: where it stands while it waits. */
  serve(tenant: string, costMs: number, tag = this.tagOf(tenant)): number {
    this.#nowMs = Math.max(this.#nowMs, tag);
    return this.correct(tenant, costMs, tag);
  }

  /** The same without time moving on: for a service that cost more or, negative, less than was thought. */
  correct(tenant: string, costMs: number, tag = this.tagOf(tenant)): number {
    const next = tag + costMs;
    this.#servedUntil.set(tenant, next);
    if (this.#servedUntil.size > this.#forgetAtCount) this.#forgetPast();
    return next;
  }

  #forgetPast(): void {
    for (const [tenant, until] of this.#servedUntil) if (until <= this.#nowMs) this.#servedUntil.delete(tenant);
    this.#forgetAtCount = Math.max(REMEMBERED_COUNT, 2 * this.#servedUntil.size);
  }
}
