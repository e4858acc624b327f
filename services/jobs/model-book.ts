/**
 * What can be asked for, as the routers say, a few seconds old at most. Nobody waits for a newer list when there is
 * one: a router that is slow must not slow down submissions.
 */
import type { generation } from '#contracts';
import type { Clock } from '#core';
import { type ModelInfo, modelInfoOf } from '#model-package';

const FRESH_MS = 5000;
/** For the first list; without one, what is well-formed is accepted. */
const PATIENCE_MS = 2000;

export class ModelBook {
  readonly #clock: Clock;
  readonly #ask: () => Promise<readonly generation.Model[]>;
  #models: ReadonlyMap<string, ModelInfo> = new Map();
  #askedAt = Number.NEGATIVE_INFINITY;
  #asking: Promise<void> = Promise.resolve();

  constructor(options: { readonly clock: Clock; readonly ask: () => Promise<readonly generation.Model[]> }) {
    this.#clock = options.clock;
    this.#ask = options.ask;
  }

  /** By name, routes included; empty while none are known. */
  async models(): Promise<ReadonlyMap<string, ModelInfo>> {
    const now = this.#clock.now();
    if (now - this.#askedAt >= FRESH_MS) {
      this.#askedAt = now;
      this.#asking = this.#refresh();
    }
    if (this.#models.size === 0) await this.#patiently(this.#asking);
    return this.#models;
  }

  async #refresh(): Promise<void> {
    try {
      const list = (await this.#ask()).flatMap((model) => modelInfoOf(model) ?? []);
      this.#models = new Map(list.map((info) => [info.name, info]));
    } catch {
      // No router answers: what was known holds, and the next one asks again.
    }
  }

  async #patiently(asking: Promise<void>): Promise<void> {
    const answered = new AbortController();
    void asking.then(() => answered.abort());
    await this.#clock.sleep(PATIENCE_MS, answered.signal).catch(() => {}); // answered
  }
}
