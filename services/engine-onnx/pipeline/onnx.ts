/** The one door to onnxruntime-node. `run` blocks its thread, so all of this lives in the worker. */
import { env, InferenceSession, Tensor } from 'onnxruntime-node';

export const onnxruntimeVersion: string = env.versions.node ?? env.versions.common;

export interface Weights {
  /** As the graph names its external data. */
  readonly name: string;
  /** A whole safetensors file; the graph holds offsets into it. Copied, so it may change afterwards. */
  readonly bytes: Uint8Array;
}

export type Inputs = Readonly<Record<string, Tensor>>;

export interface Graph {
  /** The graph's one output. */
  run(inputs: Inputs): Promise<Float32Array>;
  release(): Promise<void>;
}

export async function openGraph(graph: Uint8Array, weights: Weights, threadCount: number): Promise<Graph> {
  const session = await InferenceSession.create(graph, {
    externalData: [{ path: weights.name, data: weights.bytes }],
    executionProviders: ['cpu'],
    intraOpNumThreads: threadCount,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    // Gives memory back after every run: the process stays smaller by what its largest picture took,
    // small pictures take as long as before, those of 256² a tenth longer.
    enableCpuMemArena: false,
    enableMemPattern: false,
  });
  const [output = ''] = session.outputNames;
  return {
    run: async (inputs) => {
      const value = (await session.run(inputs))[output]?.data;
      if (!(value instanceof Float32Array)) throw new TypeError(`expected float32 from ${output}`);
      return value;
    },
    release: () => session.release(),
  };
}

export const floats = (data: Float32Array, dims: readonly number[]): Tensor => new Tensor('float32', data, dims);
export const integers = (data: readonly number[], dims: readonly number[]): Tensor =>
  new Tensor('int64', BigInt64Array.from(data, BigInt), dims);
export const flags = (data: Uint8Array, dims: readonly number[]): Tensor => new Tensor('bool', data, dims);
