/**
 * What runs where? Leases are the router's only truth about load. Each dispatch has one, numbered;
 * it is released exactly once, and a late answer cannot free a newer lease. Health checks never
 * touch it.
 */

export interface Lease {
  readonly id: number;
  readonly nodeId: string;
  readonly requestId: string;
  readonly startedAt: number;
  /** Predicted end, clock milliseconds. */
  readonly expectedEndAt: number;
}

export class LeaseTable {
  #nextId = 1;
  readonly #leases = new Map<number, Lease>();
  readonly #countByNode = new Map<string, number>();

  get size(): number {
    return this.#leases.size;
  }

  countOn(nodeId: string): number {
    return this.#countByNode.get(nodeId) ?? 0;
  }

  take(lease: Omit<Lease, 'id'>): Lease {
    const taken: Lease = { ...lease, id: this.#nextId++ };
    this.#leases.set(taken.id, taken);
    this.#countByNode.set(taken.nodeId, this.countOn(taken.nodeId) + 1);
    return taken;
  }

  /** False when it was released before. */
  release(lease: Lease): boolean {
    if (!this.#leases.delete(lease.id)) return false;
    const left = this.countOn(lease.nodeId) - 1;
    if (left > 0) this.#countByNode.set(lease.nodeId, left);
    else this.#countByNode.delete(lease.nodeId);
    return true;
  }
}
