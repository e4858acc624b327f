/** Router events as log lines and series. New figure: new event, new case here. */
import type { AccessEvent } from '#access';
import { type BreakerEvent, outcomeOf } from '#breaker';
import type { BusEvent, MembershipEvent, ReplicaEvent } from '#bus';
import { codeName, type Emit } from '#core';
import { DURATION_BUCKETS_SECONDS, type Logger, type Metrics, observeBus } from '#telemetry';
import type { RouterEvent } from './events.js';

export interface Sources {
  readonly waitingCount: () => number;
  readonly runningCount: () => number;
  readonly liveCount: () => number;
  readonly jobsReplicaCount: () => number;
  readonly membershipFrozen: () => boolean;
  readonly nodes: () => Iterable<NodeState>;
}

export interface NodeState {
  readonly nodeId: string;
  /** One of NODE_STATES. */
  readonly state: string;
  readonly breaker: 'closed' | 'open' | 'halfOpen';
  /** What it takes over what it should; 1 is as it should be. */
  readonly slowness: number;
}

const NODE_STATES = ['connected', 'disconnected', 'suspect', 'gone', 'draining'] as const;
const BREAKER_VALUES = { halfOpen: 1, open: 2 } as const;
/** Less is noise. */
const SHOWN_SLOWNESS = 1.1;
const RATIO_BUCKETS = [0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10];

export function observe(options: {
  logger: Logger;
  metrics: Metrics;
  sources: Sources;
}): Emit<RouterEvent | AccessEvent | MembershipEvent | BreakerEvent | BusEvent | ReplicaEvent> {
  const { logger, metrics, sources } = options;
  const queueWait = metrics.histogram({
    name: 'dmesh_router_queue_wait_seconds',
    help: 'Time from arrival to a slot.',
    buckets: DURATION_BUCKETS_SECONDS,
  });
  const dispatches = metrics.counter({
    name: 'dmesh_router_dispatches_total',
    help: 'Attempts sent to nodes: to an idle slot, or on a grant.',
    labels: ['how'],
  });
  const failures = metrics.counter({
    name: 'dmesh_router_attempt_failures_total',
    help: 'Attempts that failed, by reason; retried says whether another node was asked.',
    labels: ['reason', 'retried'],
  });
  const hedges = metrics.counter({
    name: 'dmesh_router_hedges_total',
    help: 'Second attempts at urgent requests whose node fell silent: won, lost or failed.',
    labels: ['result'],
  });
  const prediction = metrics.histogram({
    name: 'dmesh_router_cost_ratio',
    help: 'Actual over predicted engine time; 1 is a perfect prediction.',
    buckets: RATIO_BUCKETS,
  });
  const gpuSeconds = metrics.counter({ name: 'dmesh_router_gpu_seconds_total', help: 'Engine time delivered.' });
  const tenantRequests = metrics.counter({
    name: 'dmesh_router_tenant_requests_total',
    help: 'Requests of each tenant that are over, by status code.',
    labels: ['tenant', 'code'],
  });
  const tenantGpuSeconds = metrics.counter({
    name: 'dmesh_router_tenant_gpu_seconds_total',
    help: 'Engine time each tenant had.',
    labels: ['tenant'],
  });
  const tenantImages = metrics.counter({
    name: 'dmesh_router_tenant_images_total',
    help: 'Pictures delivered to each tenant.',
    labels: ['tenant'],
  });
  const tokenLoads = metrics.counter({
    name: 'dmesh_router_token_loads_total',
    help: 'Times the token file was read, by whether it could be used.',
    labels: ['result'],
  });
  const auditLost = metrics.counter({ name: 'dmesh_router_audit_lost_total', help: 'Lines the audit log could not take.' });
  const cacheAsked = metrics.counter({
    name: 'dmesh_router_cache_total',
    help: 'Unary requests looked up among the answers kept, by result: hit or miss.',
    labels: ['result'],
  });
  const nodeChanges = metrics.counter({
    name: 'dmesh_router_node_changes_total',
    help: 'Nodes added, removed, connected or lost.',
    labels: ['change'],
  });
  const routed = metrics.counter({
    name: 'dmesh_router_routed_total',
    help: 'Requests for a route, by the target they were given.',
    labels: ['route', 'target'],
  });
  const routesRevision = metrics.gauge({
    name: 'dmesh_router_routes_revision',
    help: 'Revision of the routes in force; the same on all routers.',
  });
  metrics.gauge({
    name: 'dmesh_router_queue_depth',
    help: 'Requests waiting for a slot.',
    collect: (g) => g.with().set(sources.waitingCount()),
  });
  metrics.gauge({
    name: 'dmesh_router_running',
    help: 'Leases held: requests on nodes.',
    collect: (g) => g.with().set(sources.runningCount()),
  });
  metrics.gauge({
    name: 'dmesh_router_jobs_replicas',
    help: 'Replicas of the jobs service that live.',
    collect: (g) => g.with().set(sources.jobsReplicaCount()),
  });
  metrics.gauge({
    name: 'dmesh_router_live_requests',
    help: 'Requests between admission and answer.',
    collect: (g) => g.with().set(sources.liveCount()),
  });
  metrics.gauge({
    name: 'dmesh_router_membership_frozen',
    help: '1 while silence on NATS is held against nobody.',
    collect: (g) => g.with().set(sources.membershipFrozen() ? 1 : 0),
  });
  const breakerOpenings = metrics.counter({
    name: 'dmesh_router_breaker_openings_total',
    help: 'Times a node was taken out, by cause.',
    labels: ['cause'],
  });
  const bus = observeBus({ logger, metrics });
  // One look for three families, and series of their own only for nodes that are not as they should be: two for each
  // of a thousand nodes held the router up for 40 ms at every look of Prometheus.
  metrics.gauge({
    name: 'dmesh_router_nodes',
    help: 'Nodes by state.',
    labels: ['state'],
    collect: (gauge) => {
      breakerState.clear();
      nodeSlowness.clear();
      const counts = new Map<string, number>(NODE_STATES.map((state) => [state, 0]));
      for (const { nodeId, state, breaker, slowness } of sources.nodes()) {
        counts.set(state, (counts.get(state) ?? 0) + 1);
        if (breaker !== 'closed') breakerState.with({ node: nodeId }).set(BREAKER_VALUES[breaker]);
        if (slowness >= SHOWN_SLOWNESS) nodeSlowness.with({ node: nodeId }).set(slowness);
      }
      for (const [state, count] of counts) gauge.with({ state }).set(count);
    },
  });
  // After the family that fills them.
  const breakerState = metrics.gauge({
    name: 'dmesh_router_breaker_state',
    help: 'Of nodes whose breaker is not closed: 1 half open, 2 open.',
    labels: ['node'],
  });
  const nodeSlowness = metrics.gauge({
    name: 'dmesh_router_node_slowness',
    help: 'What a node takes over what it should, against the fleet, where that is 1.1 or more.',
    labels: ['node'],
  });

  return (event) => {
    switch (event.type) {
      case 'admitted':
        return logger.debug({ request_id: event.requestId, model: event.model, predicted_ms: Math.round(event.predictedMs) }, 'admitted');
      case 'requestEnded': {
        const { tenant } = event;
        tenantRequests.with({ tenant, code: codeName(event.code) }).add();
        if (event.gpuMs > 0) tenantGpuSeconds.with({ tenant }).add(event.gpuMs / 1000);
        if (event.imageCount > 0) tenantImages.with({ tenant }).add(event.imageCount);
        return;
      }
      case 'leverPulled':
        return; // told by the line of its call
      case 'accessOpen':
        return logger.warn(
          { grpc: event.listen },
          'OPEN: there is no token file, everybody who reaches this router may use and drain the mesh',
        );
      case 'accessByCertificate':
        return logger.warn(
          { ca: event.callerCa },
          'there is no token file, everybody with a certificate of the CA of callers may use and drain the mesh',
        );
      case 'tokensLoaded':
        tokenLoads.with({ result: 'loaded' }).add();
        return logger.info({ path: event.path, tokens: event.tokenCount }, 'tokens loaded');
      case 'tokensRejected':
        tokenLoads.with({ result: 'rejected' }).add();
        return logger.error({ path: event.path, faults: event.faults }, 'token file refused, the last good one holds');
      case 'auditLost':
        auditLost.with().add(event.lineCount);
        return logger.error({ lines: event.lineCount, error: event.error }, 'audit log not written');
      case 'cacheAsked':
        return cacheAsked.with({ result: event.hit ? 'hit' : 'miss' }).add();
      case 'dispatched':
        queueWait.with().observe(event.queuedMs / 1000);
        dispatches.with({ how: event.granted ? 'grant' : 'idle' }).add();
        return logger.debug({ request_id: event.requestId, node_id: event.nodeId, queue_ms: Math.round(event.queuedMs) }, 'dispatched');
      case 'executed':
        gpuSeconds.with().add(event.actualMs / 1000);
        if (event.predictedMs > 0) prediction.with().observe(event.actualMs / event.predictedMs);
        return;
      case 'attemptFailed': {
        const { error } = event;
        failures.with({ reason: error.reason, retried: String(event.again) }).add();
        const fields = {
          request_id: event.requestId,
          node_id: event.nodeId,
          attempt: event.attempt,
          reason: error.reason,
          detail: error.message,
        };
        // A node that was busy or drains has not begun: ordinary life, not a failure.
        if (outcomeOf(error).retry === 'free') return logger.debug(fields, 'node did not begin, asking again');
        return event.again ? logger.warn(fields, 'attempt failed, trying again') : logger.info(fields, 'attempt failed');
      }
      case 'hedgeStarted':
        return logger.warn(
          { request_id: event.requestId, node_id: event.nodeId, silent_node_id: event.silentNodeId, silent_ms: Math.round(event.silentMs) },
          'node silent, another draws the same',
        );
      case 'hedgeEnded':
        hedges.with({ result: event.result }).add();
        return logger.info({ request_id: event.requestId, node_id: event.nodeId, result: event.result }, 'second attempt over');
      case 'nodeAdded':
        nodeChanges.with({ change: 'added' }).add();
        return logger.info({ node_id: event.nodeId, address: event.address, incarnation: event.incarnation }, 'node found');
      case 'nodeRemoved':
        nodeChanges.with({ change: 'removed' }).add();
        return logger.info({ node_id: event.nodeId, reason: event.reason }, 'node removed');
      case 'nodeConnected':
        nodeChanges.with({ change: 'connected' }).add();
        return logger.info({ node_id: event.nodeId, address: event.address }, 'node connected');
      case 'jobsReplicaFailed':
        return logger.warn(
          { jobs_replica: event.replicaId, method: event.method, reason: event.error.reason, detail: event.error.message },
          'replica of the jobs service failed, another is asked',
        );
      case 'replicaJoined':
        return logger.info({ service: event.service, replica: event.replica.id, address: event.replica.address }, 'replica joined');
      case 'replicaRestarted':
        return logger.info({ service: event.service, replica: event.replica.id, address: event.replica.address }, 'replica restarted');
      case 'replicaGone':
        return logger.warn({ service: event.service, replica: event.replica.id, cause: event.cause }, 'replica gone');
      case 'nodeLost':
        nodeChanges.with({ change: 'lost' }).add();
        return logger.warn({ node_id: event.nodeId, reason: event.reason }, 'node lost');
      case 'nodeUnreached':
        return logger.warn({ node_id: event.nodeId, address: event.address, reason: event.reason }, 'node not reached');
      case 'routed':
        return routed.with({ route: event.route, target: event.target }).add();
      case 'routesChanged':
        routesRevision.with().set(event.revision);
        return logger.info({ revision: event.revision, routes: event.routes }, 'routes changed');
      case 'routesRejected':
        return logger.error({ revision: event.revision, fault: event.fault }, 'stored routes refused, the last good ones hold');
      case 'routesLost':
        return logger.error(
          { routes: event.routeCount },
          'the store of routes came back empty: set them again, new routers do not know them',
        );
      case 'routesUnavailable':
        return logger.warn({ cause: event.cause }, 'no routes: nowhere to keep them');
      case 'slowNodeKept':
        return logger.warn({ node_id: event.nodeId, slowness: Number(event.slowness.toFixed(2)) }, 'slow node kept: it cannot be spared');
      case 'canaryEnded':
        return logger.info({ node_id: event.nodeId, ok: event.ok, reason: event.reason }, 'canary drawn');
      case 'breakerOpened':
        breakerOpenings.with({ cause: event.cause }).add();
        return logger.warn(
          { node_id: event.node, cause: event.cause, detail: event.detail, open_ms: Math.round(event.openMs) },
          'breaker opened',
        );
      case 'breakerHalfOpened':
        return logger.info({ node_id: event.node }, 'breaker half open, drawing a canary');
      case 'breakerProbePostponed':
        return logger.info({ node_id: event.node, detail: event.detail, retry_ms: Math.round(event.retryMs) }, 'canary postponed');
      case 'breakerClosed':
        return logger.info({ node_id: event.node, cause: event.cause }, 'breaker closed');
      case 'breakerTripRefused':
        return logger.warn({ node_id: event.node, cause: event.cause }, 'breaker kept closed: too few nodes would be left');
      case 'breakerForgotten':
        return;
      case 'memberJoined':
      case 'memberRestarted':
      case 'memberLeft':
      case 'memberForgotten':
        return; // told as nodeAdded and nodeRemoved
      case 'memberChanged':
        return logger.debug({ node_id: event.member.nodeId, aspects: event.aspects }, 'node changed');
      case 'memberSuspected':
        return logger.warn({ node_id: event.member.nodeId, silent_ms: Math.round(event.silentMs) }, 'node silent on NATS');
      case 'memberRecovered':
        return logger.info({ node_id: event.member.nodeId, from: event.from }, 'node beats again');
      case 'memberGone':
        return logger.warn({ node_id: event.member.nodeId, silent_ms: Math.round(event.silentMs) }, 'node gone');
      case 'memberShadowed':
        return logger.error({ node_id: event.member.nodeId, other: event.otherIncarnation }, 'two processes beat as this node');
      case 'membershipFrozen':
        return logger.warn({ cause: event.cause, silent: event.silentCount, members: event.memberCount }, 'membership frozen');
      case 'membershipThawed':
        return logger.info({ cause: event.cause, frozen_ms: Math.round(event.frozenMs) }, 'membership live');
      default:
        bus(event);
    }
  };
}
