/**
 * Many nodes in one process, started by many-nodes.ts: each has a port, a beat, the node's own slot and
 * its own Attach, and draws by waiting. What it counts it tells when asked.
 */
import { BeatPublisher, connectBus, makeIncarnation } from '#bus';
import { generation, node as nodeContract } from '#contracts';
import { type Call, type DuplexHandler, Server } from '#grpc';
import { systemClock, systemRandom } from '#runtime';
import { NO_PREEMPTION } from '#scheduling';
import { Slot } from '../../services/inference-node/domain/slot.js';
import { AttachedRouters, attach } from '../../services/inference-node/rpc/attach.js';
import { sampleBeat } from '../support/sample-beat.js';

/** What the routers said to these nodes, and how soon a grant was followed by its call. */
export interface SwarmCounts {
  bids: number;
  declines: number;
  grants: number;
  calls: number;
  refused: number;
  /** From the grant to the call that used it, milliseconds, both ways over the wire included. */
  grantToCallMs: number[];
}

type Attach = DuplexHandler<nodeContract.AttachRequest, nodeContract.AttachResponse>;

const [url = '', prefix = '', nodeCountText = '', pictureMsText = ''] = process.argv.slice(2);
const nodeCount = Number(nodeCountText);
const pictureMs = Number(pictureMsText);
const counts: SwarmCounts = { bids: 0, declines: 0, grants: 0, calls: 0, refused: 0, grantToCallMs: [] };

const bus = connectBus({ url, name: prefix, clock: systemClock, random: systemRandom, emit: () => {} });
await new Promise<void>((resolve) => bus.onLink((up) => up && resolve()));
for (let i = 0; i < nodeCount; i++) await startNode(`${prefix}-${i}`);
process.on('message', () => process.send?.(counts));
process.on('disconnect', () => process.exit(0));
process.send?.('ready');

async function startNode(nodeId: string): Promise<void> {
  const routers = new AttachedRouters();
  const grantedAt = new Map<bigint, number>();
  const slot = new Slot({
    clock: systemClock,
    grantTtlMs: 500,
    stagingWindowMs: 30,
    preemption: NO_PREEMPTION,
    firstLeaseId: 1n,
    onChange: () => {
      routers.slotChanged();
      beats.changed();
    },
  });
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20 });
  server.add(generation.ImageGenerationServiceService, {
    generate: (call) => draw(call, { nodeId, slot, routers, grantedAt }),
    generateStream: async () => {},
    listModels: async () => ({ models: [] }),
  });
  const attachToSlot = attach({ slot, clock: systemClock, routers, emit: () => {} });
  server.add(nodeContract.InferenceNodeServiceService, { attach: counting(attachToSlot, grantedAt) }, { endless: ['attach'] });
  const address = `127.0.0.1:${await server.listen('127.0.0.1:0')}`;
  const base = { ...sampleBeat({ nodeId, address, zone: '' }), incarnation: makeIncarnation(Date.now(), systemRandom) };
  const beats = new BeatPublisher({
    bus,
    clock: systemClock,
    random: systemRandom,
    read: () => ({ ...base, busyCount: slot.snapshot.busyCount }),
  });
  beats.start();
  slot.setReady(true);
}

interface DrawParts {
  readonly nodeId: string;
  readonly slot: Slot;
  readonly routers: AttachedRouters;
  readonly grantedAt: Map<bigint, number>;
}

async function draw(call: Call<generation.GenerateRequest>, { nodeId, slot, routers, grantedAt }: DrawParts) {
  const leaseText = call.metadata['x-mesh-lease'];
  const leaseId = leaseText === undefined ? undefined : BigInt(leaseText);
  const at = leaseId === undefined ? undefined : grantedAt.get(leaseId);
  if (at !== undefined) counts.grantToCallMs.push(systemClock.now() - at);
  if (leaseId !== undefined) grantedAt.delete(leaseId);
  counts.calls++;
  const lease = await slot.take(leaseId, call.signal).catch((thrown: unknown) => {
    counts.refused++;
    throw thrown;
  });
  const { 'x-mesh-router': routerId = '', 'x-mesh-tenant': tenant = '', 'x-mesh-cost-ms': costMs } = call.metadata;
  routers.served(routerId, { priority: 'normal', tenant, costMs: Number(costMs), actedFor: false });
  const tookMs = pictureMs * (call.request.steps / 8);
  lease.expectEnd(systemClock.now() + tookMs);
  try {
    await systemClock.sleep(tookMs, call.signal);
  } finally {
    lease.release();
  }
  return generation.GenerateResponse.fromPartial({ requestId: call.request.requestId, nodeId, executingMs: tookMs });
}

function counting(handler: Attach, grantedAt: Map<bigint, number>): Attach {
  return (call, out) => {
    const heard = async function* () {
      for await (const request of call.request) {
        if (request.message?.$case === 'bid') counts.bids++;
        if (request.message?.$case === 'decline') counts.declines++;
        yield request;
      }
    };
    const write: typeof out.write = (response) => {
      if ('message' in response && response.message?.$case === 'grant') {
        counts.grants++;
        grantedAt.set(response.message.value.leaseId, systemClock.now());
      }
      return out.write(response);
    };
    return handler({ ...call, request: heard() }, { write });
  };
}
