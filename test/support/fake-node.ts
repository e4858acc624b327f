/**
 * An inference node made of nothing but its gRPC face, for testing and measuring routers: real
 * sockets, the real Attach protocol, and an answer the test decides.
 */
import type { Beat, ModelReport } from '#bus';
import { generation, node as nodeContract } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import { type Call, Server, type Writer } from '#grpc';
import type { ModelInfo } from '#model-package';
import { systemClock } from '#runtime';
import { isMoreUrgent, type Urgency } from '#scheduling';
import { answerInPieces } from '../../services/inference-node/rpc/answer.js';

export const FAKE_MODEL: ModelInfo = {
  name: 'fake',
  revision: '1',
  family: 'test',
  languages: ['en'],
  defaults: { width: 128, height: 128, steps: 4, guidanceScale: 0 },
  limits: {
    sizeMultiple: 16,
    minWidth: 64,
    maxWidth: 256,
    minHeight: 64,
    maxHeight: 256,
    minSteps: 1,
    maxSteps: 50,
    minGuidanceScale: 0,
    maxGuidanceScale: 0,
    maxImageCount: 4,
    maxPromptTokens: 64,
    maxLoras: 4,
    minLoraStrength: 0,
    maxLoraStrength: 2,
  },
  negativePrompt: false,
  loras: [{ name: 'pastel', description: '' }],
};

export interface FakeNodeOptions {
  /** Default 1. */
  readonly slotCount?: number;
  /** Default: FAKE_MODEL, loaded. */
  readonly model?: ModelReport;
  /** Size of the picture in an answer; default 0: none. */
  readonly imageBytes?: number;
}

type Draw = (call: Call<generation.GenerateRequest>) => Promise<void>;

export class FakeNode {
  /** Requests in the order they were started, by id. */
  readonly started: string[] = [];
  readonly grantsUsed: bigint[] = [];
  /** What a request does while it holds the slot. */
  draw: Draw = async () => {};
  /** What a streamed one does between its two steps. */
  betweenSteps: Draw = async () => {};
  /** What it says the engine took. */
  executingMs = 5;
  gpu: Beat['gpu'] = null;
  accepting = true;
  #server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20 });
  #busyCount = 0;
  #announcing = false;
  readonly #slotCount: number;
  readonly #images: generation.Image[];
  readonly #model: ModelReport;
  #promised: { leaseId: bigint; cancel: () => void } | undefined;
  #nextLease = 1n;
  readonly #routers = new Map<Writer<nodeContract.AttachResponse>, Urgency | undefined>();
  #address = '';

  constructor(
    readonly nodeId: string,
    options: FakeNodeOptions = {},
  ) {
    this.#slotCount = options.slotCount ?? 1;
    this.#model = options.model ?? FAKE_MODEL;
    const { imageBytes = 0 } = options;
    this.#images = imageBytes > 0 ? [generation.Image.fromPartial({ data: Buffer.alloc(imageBytes, 0x5a), mimeType: 'image/png' })] : [];
  }

  get beat(): Beat {
    return {
      nodeId: this.nodeId,
      incarnation: '1-a',
      seq: 1,
      address: this.#address,
      zone: '',
      engine: { name: 'fake', version: '1', state: 'ready', determinismClass: 'fake', restartCount: 0 },
      models: [this.#model],
      slotCount: this.#slotCount,
      busyCount: this.#busyCount,
      running: [],
      draining: false,
      gpu: this.gpu,
      completedCount: 0,
      failedCount: 0,
    };
  }

  async start(port = 0): Promise<void> {
    const service = generation.ImageGenerationServiceService;
    this.#server.add(service, {
      generate: async (call) => {
        await this.#run(call);
        const { requestId } = call.request;
        const answer = generation.GenerateResponse.fromPartial({ requestId, nodeId: this.nodeId, executingMs: this.executingMs });
        return answerInPieces({ ...answer, images: this.#images });
      },
      generateStream: async (call, out) => {
        await out.write({ event: { $case: 'accepted', value: { requestId: call.request.requestId, seed: 0n, etaMs: 1 } } });
        const tell = (step: number) => out.write({ event: { $case: 'step', value: { step, total: 2, imageIndex: 0 } } });
        await this.#run(call, async () => {
          await tell(1);
          await this.betweenSteps(call);
          await tell(2);
        });
        const value = generation.Completed.fromPartial({
          requestId: call.request.requestId,
          nodeId: this.nodeId,
          executingMs: this.executingMs,
        });
        await out.write({ event: { $case: 'completed', value } });
      },
      listModels: async () => ({ models: [] }),
    });
    this.#server.add(nodeContract.InferenceNodeServiceService, { attach: (call, out) => this.#attach(call, out) }, { endless: ['attach'] });
    this.#address = `127.0.0.1:${await this.#server.listen(`127.0.0.1:${port}`)}`;
  }

  async stop(): Promise<void> {
    await this.#server.close();
  }

  /** As a real node does it: changes of one turn of the event loop become one message. */
  announce(): void {
    if (this.#announcing) return;
    this.#announcing = true;
    setImmediate(() => {
      this.#announcing = false;
      for (const out of this.#routers.keys()) this.#tell(out);
    });
  }

  async #attach(call: Call<AsyncIterable<nodeContract.AttachRequest>>, out: Writer<nodeContract.AttachResponse>): Promise<void> {
    try {
      for await (const { message } of call.request) {
        if (message?.$case === 'hello') {
          this.#routers.set(out, undefined);
          this.#tell(out);
        } else if (message?.$case === 'bid') {
          const { backlogCount, rank, leadMs, slackMs, costMs } = message.value;
          const bid = backlogCount > 0 ? { rank, leadMs, dueAt: systemClock.now() + slackMs, costMs } : undefined;
          this.#routers.set(out, bid);
          this.#grant();
        } else if (message?.$case === 'decline' && this.#promised?.leaseId === message.value.leaseId) this.#lapse();
      }
    } finally {
      this.#routers.delete(out);
    }
  }

  async #run(call: Call<generation.GenerateRequest>, steps = async () => {}): Promise<void> {
    const lease = call.metadata['x-mesh-lease'];
    if (!this.accepting) throw new StatusError({ code: Code.UNAVAILABLE, reason: Reason.DRAINING, message: 'draining' });
    const granted = lease !== undefined && this.#promised?.leaseId === BigInt(lease);
    if (!granted && !this.#hasRoom) {
      throw new StatusError({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.NODE_BUSY, message: 'busy' });
    }
    if (granted) {
      this.grantsUsed.push(BigInt(lease));
      this.#promised?.cancel();
      this.#promised = undefined;
    }
    this.#busyCount++;
    this.announce();
    this.started.push(call.request.requestId);
    try {
      await this.draw(call);
      await steps();
    } finally {
      this.#busyCount--;
      this.#grant();
      this.announce();
    }
  }

  get #hasRoom(): boolean {
    return this.#busyCount + (this.#promised ? 1 : 0) < this.#slotCount;
  }

  #grant(): void {
    if (this.#promised || !this.#hasRoom || !this.accepting) return;
    let best: Writer<nodeContract.AttachResponse> | undefined;
    let highest: Urgency | undefined;
    for (const [out, bid] of this.#routers) {
      if (bid && (!highest || isMoreUrgent(bid, highest))) [best, highest] = [out, bid];
    }
    if (!best) return;
    this.#routers.set(best, undefined);
    const leaseId = this.#nextLease++;
    this.#promised = { leaseId, cancel: systemClock.schedule(500, () => this.#lapse()) };
    void best.write({ message: { $case: 'grant', value: { leaseId, ttlMs: 500, preemption: undefined } } }).catch(() => this.#lapse());
  }

  #lapse(): void {
    this.#promised?.cancel();
    this.#promised = undefined;
    this.#grant();
    this.announce();
  }

  #tell(out: Writer<nodeContract.AttachResponse>): void {
    const busyCount = this.#busyCount + (this.#promised ? 1 : 0);
    const value = { slotCount: this.#slotCount, busyCount, accepting: this.accepting, nextFreeMs: 0, maxPauseMs: 0 };
    out.write({ message: { $case: 'slots', value } }).catch(() => {}); // a router that is gone needs no news
  }
}
