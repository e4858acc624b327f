/**
 * Many nodes in one process, started by many-nodes.ts: each has a port, a beat, the node's own slot and
 * its own Attach, and draws by waiting. What it counts it tells when asked.
 *
 * With each grant it also sends the router a ping, which HTTP/2 answers below the router's program: what that
 * takes is the way there and back, and both processes' wait for a core.
 */
import { type ClientHttp2Session, connect } from 'node:http2';
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
  grantsUsed: GrantUsed[];
}

export interface GrantUsed {
  /** From the grant to the call that used it, milliseconds, both ways over the wire included. */
  readonly tookMs: number;
  /** A ping that went with the grant. */
  readonly pingMs: number;
}

interface Granted {
  readonly at: number;
  readonly pingMs: Promise<number>;
}

type Attach = DuplexHandler<nodeContract.AttachRequest, nodeContract.AttachResponse>;

const [url = '', prefix = '', nodeCountText = '', pictureMsText = '', ...routers] = process.argv.slice(2);
const nodeCount = Number(nodeCountText);
const pictureMs = Number(pictureMsText);
const counts: SwarmCounts = { bids: 0, declines: 0, grants: 0, calls: 0, refused: 0, grantsUsed: [] };
/** By router id; each is given as id=host:port. */
const lines = new Map(routers.map(lineTo));

const bus = connectBus({ url, name: prefix, clock: systemClock, random: systemRandom, emit: () => {} });
await new Promise<void>((resolve) => bus.onLink((up) => up && resolve()));
for (let i = 0; i < nodeCount; i++) await startNode(`${prefix}-${i}`);
process.on('message', () => process.send?.(counts));
process.on('disconnect', () => process.exit(0));
process.send?.('ready');

async function startNode(nodeId: string): Promise<void> {
  const routers = new AttachedRouters();
  const grants = new Map<bigint, Granted>();
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
    generate: (call) => draw(call, { nodeId, slot, routers, grants }),
    generateStream: async () => {},
    listModels: async () => ({ models: [] }),
  });
  const attachToSlot = attach({ slot, clock: systemClock, routers, emit: () => {} });
  server.add(nodeContract.InferenceNodeServiceService, { attach: counting(attachToSlot, grants) }, { endless: ['attach'] });
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
  readonly grants: Map<bigint, Granted>;
}

async function draw(call: Call<generation.GenerateRequest>, { nodeId, slot, routers, grants }: DrawParts) {
  const leaseText = call.metadata['x-mesh-lease'];
  const leaseId = leaseText === undefined ? undefined : BigInt(leaseText);
  const granted = leaseId === undefined ? undefined : grants.get(leaseId);
  if (leaseId !== undefined) grants.delete(leaseId);
  if (granted) {
    const tookMs = systemClock.now() - granted.at;
    void granted.pingMs.then((pingMs) => counts.grantsUsed.push({ tookMs, pingMs }));
  }
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

function counting(handler: Attach, grants: Map<bigint, Granted>): Attach {
  return (call, out) => {
    let routerId = '';
    const heard = async function* () {
      for await (const request of call.request) {
        if (request.message?.$case === 'hello') routerId = request.message.value.routerId;
        if (request.message?.$case === 'bid') counts.bids++;
        if (request.message?.$case === 'decline') counts.declines++;
        yield request;
      }
    };
    const write: typeof out.write = (response) => {
      if ('message' in response && response.message?.$case === 'grant') {
        counts.grants++;
        grants.set(response.message.value.leaseId, { at: systemClock.now(), pingMs: ping(routerId) });
      }
      return out.write(response);
    };
    return handler({ ...call, request: heard() }, { write });
  };
}

function lineTo(router: string): [string, ClientHttp2Session] {
  const [id = '', address = ''] = router.split('=');
  return [id, connect(`http://${address}`, { maxOutstandingPings: 10_000 })];
}

/** NaN when the router has gone meanwhile. */
function ping(routerId: string): Promise<number> {
  return new Promise((resolve) => {
    const session = lines.get(routerId);
    if (!session) throw new Error(`expected a line to ${routerId}`);
    if (session.destroyed) return resolve(Number.NaN);
    session.ping((error, tookMs) => resolve(error ? Number.NaN : tookMs));
  });
}
