/**
 * What another service imports to have pictures drawn: promises, deadlines, progress and typed
 * errors over the generated contract. One MeshClient is one connection and serves any number of
 * calls at once.
 */
import { admin, generation } from '#contracts';
import { type Clock, Code, type Random, Reason, StatusError } from '#core';
import { type CallOptions, Channel } from '#grpc';
import { systemClock, systemRandom } from '#runtime';
import { type ClientTlsPaths, clientTlsFromFiles } from '#tls';
import { ImageAssembler, type MeshImage } from './assemble.js';
import type { Progress } from './progress.js';
import { type PictureRequest, wireRequest } from './request.js';
import { retryDelayMs } from './retry.js';
import type { MeshSnapshot, Model, NodeInfo, Route, UsedParameters } from './types.js';
import { inPlainWords } from './unanswered.js';

export interface ConnectOptions {
  /** host:port of a router or of a single node. */
  readonly address: string;
  /** How long a call may take when it does not say; default 60 s for pictures, 10 s for the rest. */
  readonly timeoutMs?: number;
  /** Says who asks, where the mesh wants to know: what `dmesh token add` printed. */
  readonly token?: string | undefined;
  /** Speaks TLS: whom to trust, and what to show where the mesh asks for certificates. The files may be replaced at any time. */
  readonly tls?: ClientTlsPaths | undefined;
  /** Sent with every call. */
  readonly metadata?: Readonly<Record<string, string>>;
  readonly clock?: Clock;
  readonly random?: Random;
}

export interface CallSettings {
  /** Aborting it cancels the call; a picture in work frees its GPU within one step. */
  readonly signal?: AbortSignal | undefined;
  /** From now until the answer, retries included. */
  readonly timeoutMs?: number | undefined;
}

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

/** Deadlines are fixed when the caller calls: every attempt and every wait between them shares one. */
type Call = CallOptions & { readonly deadlineAt: number; readonly timeoutMs: number };

const PICTURE_TIMEOUT_MS = 60_000;
const OTHER_TIMEOUT_MS = 10_000;

/** Connects with the first call; `close()` when done. Throws a RangeError when the files named in `tls` cannot be used. */
export function connectMesh(options: ConnectOptions): MeshClient {
  return new MeshClient(options);
}

export class MeshClient {
  readonly #options: ConnectOptions;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #channel: Channel;
  readonly #metadata: Readonly<Record<string, string>>;
  /** The mesh has answered before; when it is away now, it is expected back. */
  #known = false;

  constructor(options: ConnectOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? systemRandom;
    this.#metadata = { ...options.metadata, ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }) };
    const tls = options.tls && clientTlsFromFiles(options.tls);
    this.#channel = new Channel(options.address, { clock: this.#clock, keepaliveMs: 30_000, tls });
  }

  get address(): string {
    return this.#channel.address;
  }

  /** Draws. Rejects with a StatusError (exported as MeshError) whose `reason` says why. */
  generate(request: PictureRequest, options: GenerateOptions = {}): Promise<Generated> {
    const message = wireRequest(request, this.#random);
    const { onProgress } = options;
    return this.#withRetries(this.#call(options, PICTURE_TIMEOUT_MS), onProgress, (call) =>
      onProgress ? this.#generateStream(message, call, guarded(onProgress)) : this.#generate(message, call),
    );
  }

  /** What can be asked for here, with each model's defaults and limits. */
  async listModels(options: CallSettings = {}): Promise<Model[]> {
    const call = this.#call(options, OTHER_TIMEOUT_MS);
    return (await this.#withRetries(call, undefined, () => this.#channel.unary(Pictures.listModels, {}, call))).response.models;
  }

  /** Every node the router knows. */
  async listNodes(options: CallSettings = {}): Promise<NodeInfo[]> {
    const call = this.#call(options, OTHER_TIMEOUT_MS);
    return (await this.#withRetries(call, undefined, () => this.#channel.unary(Admin.listNodes, {}, call))).response.nodes;
  }

  /** The mesh as it is now and again whenever it changes; leaving the loop ends the call. */
  watchMesh(options: CallSettings = {}): AsyncIterable<MeshSnapshot> {
    const call = this.#call(options, Number.POSITIVE_INFINITY);
    return this.#told(this.#channel.serverStream(Admin.watchMesh, {}, call), call);
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
    const call = this.#call(options, OTHER_TIMEOUT_MS);
    await this.#channel.unary(Admin.drain, { nodeId }, call).catch((thrown) => Promise.reject(this.#plain(thrown, call)));
  }

  /** Takes a drain back. */
  async resume(nodeId: string, options: CallSettings = {}): Promise<void> {
    const call = this.#call(options, OTHER_TIMEOUT_MS);
    await this.#channel.unary(Admin.resume, { nodeId }, call).catch((thrown) => Promise.reject(this.#plain(thrown, call)));
  }

  /** Public model names and where they lead, with the revision that a change must name. */
  async getRoutes(options: CallSettings = {}): Promise<{ routes: Route[]; revision: bigint }> {
    const call = this.#call(options, OTHER_TIMEOUT_MS);
    return (await this.#withRetries(call, undefined, () => this.#channel.unary(Admin.getRoutes, {}, call))).response;
  }

  /** Replaces all routes; rejects with CHANGED_MEANWHILE when they are not as read any more. Resolves with their revision. */
  async setRoutes(
    routes: readonly Route[],
    options: CallSettings & { readonly expectedRevision: bigint; readonly force?: boolean },
  ): Promise<bigint> {
    const call = this.#call(options, OTHER_TIMEOUT_MS);
    const request = { routes: [...routes], expectedRevision: options.expectedRevision, force: options.force ?? false };
    const sent = this.#channel.unary(Admin.setRoutes, request, call);
    return (await sent.catch((thrown) => Promise.reject(this.#plain(thrown, call)))).response.revision;
  }

  /** Ends the connection. Calls in flight fail. */
  close(): void {
    this.#channel.close();
  }

  async #generate(message: generation.GenerateRequest, call: CallOptions): Promise<Generated> {
    const { response } = await this.#channel.unary(Pictures.generate, message, call);
    return generated(response, response.images);
  }

  async #generateStream(
    message: generation.GenerateRequest,
    call: CallOptions,
    onProgress: (progress: Progress) => void,
  ): Promise<Generated> {
    const assembler = new ImageAssembler();
    for await (const { event } of this.#channel.serverStream(Pictures.generateStream, message, call)) {
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

  #call(options: CallSettings, defaultTimeoutMs: number): Call {
    const timeoutMs = options.timeoutMs ?? this.#options.timeoutMs ?? defaultTimeoutMs;
    return {
      timeoutMs,
      deadlineAt: this.#clock.now() + timeoutMs,
      ...(options.signal ? { signal: options.signal } : {}),
      metadata: this.#metadata,
    };
  }

  async #withRetries<T>(
    call: Call,
    onProgress: ((progress: Progress) => void) | undefined,
    send: (call: CallOptions) => Promise<T>,
  ): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        const answer = await send(call);
        this.#known = true;
        return answer;
      } catch (thrown) {
        if (thrown instanceof ListenerFailed) throw thrown.cause;
        const error = this.#plain(thrown, call);
        const delayMs = retryDelayMs(error, { attempt, random: this.#random, known: this.#known });
        if (delayMs === undefined || this.#clock.now() + delayMs >= call.deadlineAt) throw error;
        onProgress?.({ kind: 'retrying', attempt: attempt + 1, delayMs, reason: error.reason });
        await this.#clock.sleep(delayMs, call.signal).catch((reason) => Promise.reject(StatusError.from(reason)));
      }
    }
  }

  async *#told<T>(messages: AsyncIterable<T>, call: Call): AsyncGenerator<T, void> {
    try {
      yield* messages;
    } catch (thrown) {
      throw this.#plain(thrown, call);
    }
  }

  #plain(thrown: unknown, { timeoutMs }: Call): StatusError {
    return inPlainWords(StatusError.from(thrown), { address: this.address, timeoutMs });
  }
}

/** The caller's own code failed, not the mesh: its error is no status of a call. */
class ListenerFailed extends Error {
  override readonly name = 'ListenerFailed';
}

function guarded(onProgress: (progress: Progress) => void): (progress: Progress) => void {
  return (progress) => {
    try {
      onProgress(progress);
    } catch (cause) {
      throw new ListenerFailed('onProgress threw', { cause });
    }
  };
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
