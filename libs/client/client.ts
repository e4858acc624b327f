/**
 * What another service imports to have pictures drawn: promises, deadlines, progress and typed
 * errors over the generated contract. One MeshClient is one connection and serves any number of
 * calls at once.
 */
import { admin, generation } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import type { CallOptions } from '#grpc';
import { ImageAssembler, type MeshImage } from './assemble.js';
import {
  Caller,
  type CallSettings,
  type ClientCall,
  type ConnectOptions,
  guarded,
  OTHER_TIMEOUT_MS,
  PICTURE_TIMEOUT_MS,
} from './caller.js';
import { JobsClient } from './jobs.js';
import type { Progress } from './progress.js';
import { type PictureRequest, wireRequest } from './request.js';
import type { MeshSnapshot, Model, NodeInfo, Route, UsedParameters } from './types.js';

export interface GenerateOptions extends CallSettings {
  /** Asks for the answer as a stream and tells how it comes along. What it throws ends the call and is what the caller gets. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

export interface Generated {
  readonly requestId: string;
  readonly images: readonly MeshImage[];
  /** Everything that decided what the picture looks like. */
  readonly used: UsedParameters;
  /** The node that drew it. */
  readonly nodeId: string;
  readonly timings: { readonly queuedMs: number; readonly executingMs: number };
  /** Nodes the mesh tried, 1 on a calm day. */
  readonly attempts: number;
}

const Pictures = generation.ImageGenerationServiceService;
const Admin = admin.MeshAdminServiceService;

/** Connects with the first call; `close()` when done. Throws a RangeError when the files named in `tls` cannot be used. */
export function connectMesh(options: ConnectOptions): MeshClient {
  return new MeshClient(options);
}

export class MeshClient {
  /** Submit now, collect later. */
  readonly jobs: JobsClient;
  readonly #caller: Caller;

  constructor(options: ConnectOptions) {
    this.#caller = new Caller(options);
    this.jobs = new JobsClient(this.#caller);
  }

  get address(): string {
    return this.#caller.channel.address;
  }

  /** Draws. Rejects with a StatusError (exported as MeshError) whose `reason` says why. */
  generate(request: PictureRequest, options: GenerateOptions = {}): Promise<Generated> {
    const message = wireRequest(request, this.#caller.random);
    const { onProgress } = options;
    const call = this.#caller.call(options, PICTURE_TIMEOUT_MS);
    const send = () => (onProgress ? this.#generateStream(message, call, guarded(onProgress)) : this.#generate(message, call));
    return this.#caller.withRetries(call, send, { onRetry: onProgress && ((retry) => onProgress({ kind: 'retrying', ...retry })) });
  }

  /** What can be asked for here, with each model's defaults and limits. */
  async listModels(options: CallSettings = {}): Promise<Model[]> {
    const call = this.#caller.call(options, OTHER_TIMEOUT_MS);
    return (await this.#caller.withRetries(call, () => this.#caller.channel.unary(Pictures.listModels, {}, call))).response.models;
  }

  /** Every node the router knows. */
  async listNodes(options: CallSettings = {}): Promise<NodeInfo[]> {
    const call = this.#caller.call(options, OTHER_TIMEOUT_MS);
    return (await this.#caller.withRetries(call, () => this.#caller.channel.unary(Admin.listNodes, {}, call))).response.nodes;
  }

  /** The mesh as it is now and again whenever it changes; leaving the loop ends the call. */
  watchMesh(options: CallSettings = {}): AsyncIterable<MeshSnapshot> {
    const call = this.#caller.call(options, Number.POSITIVE_INFINITY);
    return this.#told(this.#caller.channel.serverStream(Admin.watchMesh, {}, call), call);
  }

  /** Resolves when the router sees at least `count` nodes that are alive, connected and able to draw. */
  async waitForNodes(count: number, options: CallSettings = {}): Promise<NodeInfo[]> {
    for await (const { nodes } of this.watchMesh({ timeoutMs: 30_000, ...options })) {
      const ready = nodes.filter(isReady);
      if (ready.length >= count) return ready;
    }
    throw streamEnded();
  }

  /** Asks a node to take no more work; what runs is finished. */
  async drain(nodeId: string, options: CallSettings = {}): Promise<void> {
    const call = this.#caller.call(options, OTHER_TIMEOUT_MS);
    await this.#caller.channel.unary(Admin.drain, { nodeId }, call).catch((thrown) => Promise.reject(this.#caller.plain(thrown, call)));
  }

  /** Takes a drain back. */
  async resume(nodeId: string, options: CallSettings = {}): Promise<void> {
    const call = this.#caller.call(options, OTHER_TIMEOUT_MS);
    await this.#caller.channel.unary(Admin.resume, { nodeId }, call).catch((thrown) => Promise.reject(this.#caller.plain(thrown, call)));
  }

  /** Public model names and where they lead, with the revision that a change must name. */
  async getRoutes(options: CallSettings = {}): Promise<{ routes: Route[]; revision: bigint }> {
    const call = this.#caller.call(options, OTHER_TIMEOUT_MS);
    return (await this.#caller.withRetries(call, () => this.#caller.channel.unary(Admin.getRoutes, {}, call))).response;
  }

  /** Replaces all routes; rejects with CHANGED_MEANWHILE when they are not as read any more. Resolves with their revision. */
  async setRoutes(
    routes: readonly Route[],
    options: CallSettings & { readonly expectedRevision: bigint; readonly force?: boolean },
  ): Promise<bigint> {
    const call = this.#caller.call(options, OTHER_TIMEOUT_MS);
    const request = { routes: [...routes], expectedRevision: options.expectedRevision, force: options.force ?? false };
    const sent = this.#caller.channel.unary(Admin.setRoutes, request, call);
    return (await sent.catch((thrown) => Promise.reject(this.#caller.plain(thrown, call)))).response.revision;
  }

  /** Ends the connection. Calls in flight fail. */
  close(): void {
    this.#caller.channel.close();
  }

  async #generate(message: generation.GenerateRequest, call: CallOptions): Promise<Generated> {
    const { response } = await this.#caller.channel.unary(Pictures.generate, message, call);
    return generated(response, response.images);
  }

  async #generateStream(
    message: generation.GenerateRequest,
    call: CallOptions,
    onProgress: (progress: Progress) => void,
  ): Promise<Generated> {
    const assembler = new ImageAssembler();
    for await (const { event } of this.#caller.channel.serverStream(Pictures.generateStream, message, call)) {
      if (!event) continue; // a newer mesh may say more than this client knows
      switch (event.$case) {
        case 'started':
          assembler.started(event.value.attempt);
          onProgress({ kind: 'started', ...event.value });
          break;
        case 'image': {
          const { imageIndex, totalBytes } = event.value;
          const receivedBytes = assembler.add(event.value);
          onProgress({ kind: 'receiving', imageIndex, receivedBytes, totalBytes: Number(totalBytes) });
          break;
        }
        case 'completed':
          return generated(event.value, assembler.finish(event.value.imageCount));
        default:
          onProgress({ kind: event.$case, ...event.value } as Progress);
      }
    }
    throw streamEnded();
  }

  async *#told<T>(messages: AsyncIterable<T>, call: ClientCall): AsyncGenerator<T, void> {
    try {
      yield* messages;
    } catch (thrown) {
      throw this.#caller.plain(thrown, call);
    }
  }
}

/** Alive, connected to the router that says so, and able to draw. */
export function isReady(node: NodeInfo): boolean {
  return node.liveness === admin.Liveness.ALIVE && node.connected && node.engineState === 'ready';
}

function generated(
  end: Pick<generation.GenerateResponse, 'requestId' | 'used' | 'nodeId' | 'queuedMs' | 'executingMs' | 'attempts'>,
  images: readonly MeshImage[],
): Generated {
  const { requestId, nodeId, queuedMs, executingMs, attempts } = end;
  return {
    requestId,
    images,
    used: end.used ?? generation.UsedParameters.fromPartial({}),
    nodeId,
    timings: { queuedMs, executingMs },
    attempts,
  };
}

function streamEnded(): StatusError {
  return new StatusError({
    code: Code.DATA_LOSS,
    reason: Reason.BAD_STREAM,
    message: 'the stream ended early, without its last event',
  });
}
