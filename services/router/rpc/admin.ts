/** MeshAdminService: what this router sees, and the levers an operator has. */
import { type Bus, sendControl } from '#bus';
import { admin } from '#contracts';
import { type Clock, Code, Reason, StatusError } from '#core';
import type { HandlersOf } from '#grpc';
import { modelMessage } from '#model-package';
import type { CostModel } from '#scheduling';
import type { Levers } from '../access.js';
import type { Dispatcher } from '../dispatch/dispatcher.js';
import type { Fleet } from '../dispatch/fleet.js';
import type { FleetNode } from '../dispatch/fleet-node.js';
import { Turns } from '../dispatch/turns.js';
import { queueFigures } from '../queue-figures.js';
import type { Rates } from '../rates.js';
import { routeText } from '../routes/route.js';
import { SharedWatch } from '../shared-watch.js';
import { type RouteParts, routeHandlers } from './routes.js';

export interface AdminParts {
  readonly bus: Bus;
  readonly clock: Clock;
  readonly cost: CostModel;
  readonly dispatcher: Dispatcher;
  readonly fleet: Fleet;
  readonly runningCount: () => number;
  readonly membershipFrozen: () => boolean;
  readonly rates: Pick<Rates, 'read'>;
  readonly routes: RouteParts['routes'];
  readonly routeStore: RouteParts['store'];
}

/** Some dozen routes; the line "routes changed" has them all. */
const MAX_SUBJECT_CHARS = 4096;

/** The orders that change the mesh, and what each is to be done to, for logs. A caller's text is clipped. */
export const LEVERS: Levers<HandlersOf<typeof admin.MeshAdminServiceService>> = {
  drain: ({ nodeId }) => ({ node_id: nodeId.slice(0, MAX_SUBJECT_CHARS) }),
  resume: ({ nodeId }) => ({ node_id: nodeId.slice(0, MAX_SUBJECT_CHARS) }),
  setRoutes: ({ routes }) => ({ routes: routes.map(routeText).join('; ').slice(0, MAX_SUBJECT_CHARS) }),
};

/** Ages move all the time and are no news while beats come; a silence that grows is. */
const SILENCE_STEP_MS = 1500;
/** Nodes described in one turn of the event loop. */
const TURN_COUNT = 100;
/** Watchers are told of changes at most this often. */
const WATCH_INTERVAL_MS = 500;

export function adminHandlers(parts: AdminParts): HandlersOf<typeof admin.MeshAdminServiceService> {
  const { bus, clock, cost, fleet } = parts;
  const turns = new Turns(1);
  /**
   * As the field `nodes` of a message, by id. To describe and serialise a thousand takes 20 ms, during which nothing
   * else would happen here; since parts of a message that were serialised apart are, one after the other, the message,
   * other work gets its turn in between.
   */
  const nodeBytes = async (
    serialise: (nodes: admin.NodeInfo[]) => Uint8Array,
    change: (node: admin.NodeInfo) => admin.NodeInfo = (node) => node,
  ): Promise<Uint8Array[]> => {
    const nodes = [...fleet].sort((a, b) => (a.nodeId < b.nodeId ? -1 : 1));
    const parts: Uint8Array[] = [];
    for (let at = 0; at < nodes.length; at += TURN_COUNT) {
      if (at > 0) await turns.next();
      parts.push(serialise(nodes.slice(at, at + TURN_COUNT).map((node) => change(describe(node, clock, cost)))));
    }
    return parts;
  };
  const control = async (nodeId: string, action: 'drain' | 'resume') => {
    if (!fleet.get(nodeId)) throw unknownNode(nodeId, fleet);
    const reply = await sendControl({ bus, nodeId, action });
    // The caller named a node that exists, and we the action: that the node did not obey is nothing a caller can mend.
    if ('error' in reply) throw new StatusError({ code: Code.INTERNAL, reason: Reason.INTERNAL, message: `${nodeId}: ${reply.error}` });
    return {};
  };
  let listing: Promise<Buffer> | undefined;
  const mesh = new SharedWatch({
    clock,
    intervalMs: WATCH_INTERVAL_MS,
    draw: async () => {
      const nodes = await nodeBytes((some) => snapshotBytes({ nodes: some }), inSilenceSteps);
      const rest = snapshotBytes({
        queuedCount: parts.dispatcher.waitingCount,
        runningCount: parts.runningCount(),
        membershipFrozen: parts.membershipFrozen(),
        ...queueFigures(parts.dispatcher.waiting),
        rates: parts.rates.read(),
      });
      return Buffer.concat([...nodes, rest]);
    },
  });
  return {
    listNodes: () => {
      // Those who ask at the same time share it.
      listing ??= nodeBytes((nodes) => admin.ListNodesResponse.encode({ nodes }).finish())
        .then((parts) => Buffer.concat(parts))
        .finally(() => {
          listing = undefined;
        });
      return listing;
    },
    watchMesh: async (call, out) => {
      for await (const snapshot of mesh.watch(call.signal)) await out.write(snapshot);
    },
    drain: (call) => control(call.request.nodeId, 'drain'),
    resume: (call) => control(call.request.nodeId, 'resume'),
    ...routeHandlers({ fleet, routes: parts.routes, store: parts.routeStore }),
  };
}

function snapshotBytes(snapshot: Partial<admin.MeshSnapshot>): Uint8Array {
  return admin.MeshSnapshot.encode(admin.MeshSnapshot.fromPartial(snapshot)).finish();
}

function inSilenceSteps(node: admin.NodeInfo): admin.NodeInfo {
  return { ...node, sinceBeatMs: Math.floor(node.sinceBeatMs / SILENCE_STEP_MS) * SILENCE_STEP_MS };
}

function describe(node: FleetNode, clock: Clock, cost: CostModel): admin.NodeInfo {
  const { beat, link } = node;
  const running = beat.running.find(({ paused }) => paused !== true);
  // Of the model it is slowest with: that is what sends it to quarantine.
  const [pace = 1] = beat.models.map(({ name }) => cost.pace(beat.nodeId, name)).sort((a, b) => b - a);
  return {
    nodeId: beat.nodeId,
    incarnation: beat.incarnation,
    address: beat.address,
    zone: beat.zone,
    liveness: LIVENESS[node.member.state],
    breaker: BREAKER_STATES[node.breaker.state],
    connected: link.connected,
    draining: beat.draining,
    slotCount: beat.slotCount,
    busyCount: link.connected ? link.busyCount : beat.busyCount,
    engineState: beat.engine.state,
    engine: beat.engine.name,
    models: beat.models.map((info) => modelMessage(info, 1, { loadedCount: (info.loaded ?? true) ? 1 : 0, loadMs: info.loadMs ?? 0 })),
    gpu: beat.gpu
      ? {
          ...beat.gpu,
          memoryTotalBytes: BigInt(beat.gpu.memoryTotalBytes),
          memoryUsedBytes: BigInt(beat.gpu.memoryUsedBytes),
          memoryPeakBytes: BigInt(beat.gpu.memoryPeakBytes ?? 0),
        }
      : undefined,
    sinceBeatMs: clock.now() - node.member.heardAt,
    runningRequestId: running?.requestId ?? '',
    runningStep: running?.step ?? 0,
    runningTotal: running?.total ?? 0,
    pausedRequestId: beat.running.find(({ paused }) => paused)?.requestId ?? '',
    costRatio: pace,
    breakerCause: node.breaker.cause ?? '',
    completedCount: BigInt(beat.completedCount),
    failedCount: BigInt(beat.failedCount),
    engineRestartCount: BigInt(beat.engine.restartCount),
  };
}

const LIVENESS = { alive: admin.Liveness.ALIVE, suspect: admin.Liveness.SUSPECT, gone: admin.Liveness.GONE } as const;

const BREAKER_STATES = {
  closed: admin.BreakerState.CLOSED,
  open: admin.BreakerState.OPEN,
  halfOpen: admin.BreakerState.HALF_OPEN,
} as const;

function unknownNode(nodeId: string, fleet: Fleet): StatusError {
  const ids = [...fleet].map((node) => node.nodeId).sort();
  const known = ids.join(', ') || 'none';
  return new StatusError({
    code: Code.NOT_FOUND,
    reason: Reason.UNKNOWN_NODE,
    message: `expected one of the nodes ${known}, got ${JSON.stringify(nodeId)}`,
    resource: { type: 'node', name: nodeId, description: known },
  });
}
