/** A loaded model: its three graphs, the adapters merged lately, and one way to use them. */
import { type ModelPackage, modelUnusable, readModelPackage } from '#model-package';
import { type Drawing, type Drawn, draw, type Parts, type Progress } from './draw.js';
import { ENGINE_FILES, readModelFile, readModelJson } from './files.js';
import { type Graph, openGraph } from './onnx.js';
import { promptEncoder } from './prompt.js';
import { readSettings } from './settings.js';
import { type AdapterUse, TransformerCache } from './transformer-cache.js';

export interface PipelineOptions {
  readonly threadCount: number;
  /** Adapter sets kept merged. */
  readonly adapterSetCount: number;
}

export class Pipeline {
  readonly #parts: Omit<Parts, 'transformer'>;
  readonly #transformers: TransformerCache;

  private constructor(
    readonly model: ModelPackage,
    parts: Omit<Parts, 'transformer'>,
    transformers: TransformerCache,
  ) {
    this.#parts = parts;
    this.#transformers = transformers;
  }

  /** FAILED_PRECONDITION/MODEL_UNUSABLE names what is missing or wrong. */
  static async load(dir: string, options: PipelineOptions): Promise<Pipeline> {
    const model = await readModelPackage(dir, ENGINE_FILES);
    const settings = await readSettings(model);
    const encodePrompt = promptEncoder(
      await readModelJson(model, 'tokenizer/tokenizer.json'),
      await readModelJson(model, 'tokenizer/tokenizer_config.json'),
    );
    const { threadCount } = options;
    const opened: Graph[] = [];
    const open = async (graph: string, weights: string, location: string): Promise<Graph> => {
      const bytes = await readModelFile(model, weights);
      const next = await openModelGraph(model, { graph, location, weights: bytes, threadCount });
      opened.push(next);
      return next;
    };
    try {
      const textEncoder = await open('onnx/text_encoder.onnx', 'text_encoder/model.safetensors', 'text_encoder.safetensors');
      const decoder = await open('onnx/vae_decoder.onnx', 'vae/diffusion_pytorch_model.safetensors', 'vae.safetensors');
      const transformers = await TransformerCache.open({
        model,
        capacity: options.adapterSetCount,
        openWith: (weights) =>
          openModelGraph(model, { graph: 'onnx/transformer.onnx', location: 'transformer.safetensors', weights, threadCount }),
      });
      const parts = { settings, maxPromptTokens: model.info.limits.maxPromptTokens, encodePrompt, textEncoder, decoder };
      return new Pipeline(model, parts, transformers);
    } catch (reason) {
      for (const graph of opened) await graph.release();
      throw reason;
    }
  }

  async draw(drawing: Drawing & { readonly loras: readonly AdapterUse[] }, progress: Progress): Promise<Drawn> {
    progress.checkpoint();
    await this.#transformers.withAdapters(drawing.loras); // what cannot be merged fails before anything is drawn
    // Asked for at every step: a request drawn while this one was paused may have taken its place.
    const run: Graph['run'] = async (inputs) => (await this.#transformers.withAdapters(drawing.loras)).run(inputs);
    return draw({ ...this.#parts, transformer: { run } }, drawing, progress);
  }

  async release(): Promise<void> {
    await this.#parts.textEncoder.release();
    await this.#parts.decoder.release();
    await this.#transformers.release();
  }
}

interface GraphSource {
  /** Relative to the model folder. */
  readonly graph: string;
  /** The weights' name inside the graph. */
  readonly location: string;
  readonly weights: Uint8Array;
  readonly threadCount: number;
}

async function openModelGraph(model: ModelPackage, source: GraphSource): Promise<Graph> {
  const graph = await readModelFile(model, source.graph);
  try {
    return await openGraph(graph, { name: source.location, bytes: source.weights }, source.threadCount);
  } catch (cause) {
    throw modelUnusable(`${source.graph} of model ${model.info.name}: onnxruntime cannot use it`, cause);
  }
}
