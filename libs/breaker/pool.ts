/**
 * One breaker for each node, and the rule over all of them: suspicion alone never takes out more than
 * half of the nodes, because then the fault is more likely the requests' or ours. Dead connections do:
 * a request sent there cannot succeed.
 */
import type { Clock, Emit, Random } from '#core';
import { Breaker, type BreakerEvent } from './breaker.js';
import type { BreakerSettings } from './settings.js';

export interface BreakerPoolOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly emit: Emit<BreakerEvent>;
  /** Runs the canary on this node. */
  readonly probe: (node: string, signal: AbortSignal) => Promise<void>;
  readonly settings?: Partial<BreakerSettings>;
  /** Share of the known nodes that must stay closed after an opening by the rule. Default 0.5. */
  readonly minHealthyRatio?: number;
}

export class BreakerPool {
  readonly #options: BreakerPoolOptions;
  readonly #breakers = new Map<string, Breaker>();

  constructor(options: BreakerPoolOptions) {
    const { minHealthyRatio = 0.5 } = options;
    if (!(minHealthyRatio >= 0 && minHealthyRatio <= 1)) {
      throw new RangeError(`minHealthyRatio: expected 0 to 1, got ${minHealthyRatio}`);
    }
    this.#options = options;
  }

  /** The node's breaker; made, closed, at the first mention. */
  of(node: string): Breaker {
    let breaker = this.#breakers.get(node);
    if (!breaker) {
      const { clock, random, emit, probe, settings = {} } = this.#options;
      const mayOpen = () => this.#mayOpenOneMore();
      breaker = new Breaker({ name: node, clock, random, emit, probe: (signal) => probe(node, signal), mayOpen, settings });
      this.#breakers.set(node, breaker);
    }
    return breaker;
  }

  /** The node is gone: its breaker is closed down and no longer counts for the floor. */
  forget(node: string): void {
    const breaker = this.#breakers.get(node);
    if (!breaker) return;
    breaker.close();
    this.#breakers.delete(node);
    this.#options.emit({ type: 'breakerForgotten', node });
  }

  /** Clears every timer. */
  close(): void {
    for (const breaker of this.#breakers.values()) breaker.close();
    this.#breakers.clear();
  }

  #mayOpenOneMore(): boolean {
    let closedCount = 0;
    for (const breaker of this.#breakers.values()) if (breaker.state === 'closed') closedCount++;
    return closedCount - 1 >= (this.#options.minHealthyRatio ?? 0.5) * this.#breakers.size;
  }
}
