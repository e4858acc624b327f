/**
 * The transformer with the adapters a request asks for. onnxruntime knows no adapters, so they are
 * merged into a copy of the weights and a graph is opened on it; the sets used last are kept open.
 * Without adapters, or with strength 0 only, it is the base graph itself, hence the same bytes.
 */
import path from 'node:path';
import type { ModelPackage } from '#model-package';
import { readModelFile } from './files.js';
import { loraUnusable, mergeLora } from './lora.js';
import type { Graph } from './onnx.js';

export interface AdapterUse {
  readonly name: string;
  readonly strength: number;
}

export interface TransformerCacheOptions {
  readonly model: ModelPackage;
  /** Merged graphs kept open beside the base. */
  readonly capacity: number;
  readonly openWith: (weights: Uint8Array) => Promise<Graph>;
}

const WEIGHTS = 'transformer/diffusion_pytorch_model.safetensors';

export class TransformerCache {
  readonly #options: TransformerCacheOptions;
  readonly #base: Graph;
  /** The transformer's weights, read afresh for every merge. */
  readonly #scratch: Buffer;
  /** The one used last is at the end. */
  readonly #merged = new Map<string, Graph>();

  private constructor(options: TransformerCacheOptions, base: Graph, scratch: Buffer) {
    this.#options = options;
    this.#base = base;
    this.#scratch = scratch;
  }

  static async open(options: TransformerCacheOptions): Promise<TransformerCache> {
    const weights = await readModelFile(options.model, WEIGHTS);
    return new TransformerCache(options, await options.openWith(weights), weights);
  }

  /** The graph stays usable until the next call. */
  async withAdapters(uses: readonly AdapterUse[]): Promise<Graph> {
    const active = uses.filter((use) => use.strength !== 0);
    if (active.length === 0) return this.#base;
    // Merging adds in order, and float32 sums depend on it: one order for one set, one picture.
    active.sort((a, b) => (a.name < b.name ? -1 : 1));
    const key = JSON.stringify(active.map(({ name, strength }) => [name, strength]));
    const known = this.#merged.get(key);
    this.#merged.delete(key);
    const graph = known ?? (await this.#merge(active));
    this.#merged.set(key, graph);
    return graph;
  }

  async release(): Promise<void> {
    for (const graph of [this.#base, ...this.#merged.values()]) await graph.release();
    this.#merged.clear();
  }

  async #merge(uses: readonly AdapterUse[]): Promise<Graph> {
    const { model, capacity, openWith } = this.#options;
    // Read again: the last merge has changed the buffer, and the file stays in the system's cache.
    const weights = await readModelFile(model, WEIGHTS, this.#scratch);
    for (const { name, strength } of uses) {
      const file = model.loraFiles.get(name);
      if (file === undefined) throw loraUnusable(name, 'the model has no such adapter');
      const bytes = await readModelFile(model, path.relative(model.dir, file));
      mergeLora(weights, bytes, { name, strength });
    }
    for (const [oldest, graph] of this.#merged) {
      if (this.#merged.size < capacity) break;
      this.#merged.delete(oldest);
      await graph.release();
    }
    return openWith(weights);
  }
}
