/** Router events as log lines and series. New figure: new event, new case here. */
import type { BreakerEvent } from '#breaker';
import type { BusEvent } from '#bus';
import type { MembershipEvent } from '#bus';
import type { Emit } from '#core';
import { DURATION_BUCKETS_SECONDS, type Logger, type Metrics } from '#telemetry';
import type { RouterEvent } from './events.js';

export interface Sources {
  readonly waitingCount: () => number;
  readonly runningCount: () => number;
  readonly liveCount: () => number;
  readonly nodeStates: () => Iterable<NodeState>;
}

export interface NodeState {
  readonly nodeId: string;
  /** connected, disconnected, suspect or draining. */
  readonly state: string;
  readonly breaker: 'closed' | 'open' | 'halfOpen';
  readonly busyCount: number;
}

const NODE_STATES = ['connected', 'disconnected', 'suspect', 'draining'] as const;
const BREAKER_VALUES = { closed: 0, halfOpen: 1, open: 2 } as const;
const RATIO_BUCKETS = [0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10];

export function observe(options: { logger: Logger; metrics: Metrics; sources: () => Sources | undefined }): Emit<
  RouterEvent | MembershipEvent | BreakerEvent | BusEvent
> {
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
  const prediction = metrics.histogram({
    name: 'dmesh_router_cost_ratio',
    help: 'Actual over predicted engine time; 1 is a perfect prediction.',
    buckets: RATIO_BUCKETS,
  });
  const gpuSeconds = metrics.counter({ name: 'dmesh_router_gpu_seconds_total', help: 'Engine time delivered.' });
  const nodeChanges = metrics.counter({
    name: 'dmesh_router_node_changes_total',
    help: 'Nodes added, removed, connected or lost.',
    labels: ['change'],
  });
  metrics.gauge({ name: 'dmesh_router_queue_depth', help: 'Requests waiting for a slot.', collect: (g) => g.with().set(sources()?.waitingCount() ?? 0) });
  metrics.gauge({ name: 'dmesh_router_running', help: 'Leases held: requests on nodes.', collect: (g) => g.with().set(sources()?.runningCount() ?? 0) });
  metrics.gauge({ name: 'dmesh_router_live_requests', help: 'Requests between admission and answer.', collect: (g) => g.with().set(sources()?.liveCount() ?? 0) });
  metrics.gauge({
    name: 'dmesh_router_nodes',
    help: 'Nodes by state.',
    labels: ['state'],
    collect: (gauge) => {
      const counts = new Map<string, number>(NODE_STATES.map((state) => [state, 0]));
      for (const { state } of sources()?.nodeStates() ?? []) counts.set(state, (counts.get(state) ?? 0) + 1);
      for (const [state, count] of counts) gauge.with({ state }).set(count);
    },
  });
  metrics.gauge({
    name: 'dmesh_router_breaker_state',
    help: '0 closed, 1 half open, 2 open.',
    labels: ['node'],
    collect: (gauge) => {
      gauge.clear();
      for (const { nodeId, breaker } of sources()?.nodeStates() ?? []) gauge.with({ node: nodeId }).set(BREAKER_VALUES[breaker]);
    },
  });

  return (event) => {
    switch (event.type) {
      case 'admitted':
        return logger.debug({ request_id: event.requestId, model: event.model, predicted_ms: Math.round(event.predictedMs) }, 'admitted');
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
        const fields = { request_id: event.requestId, node_id: event.nodeId, attempt: event.attempt, reason: error.reason, detail: error.message };
        return event.again ? logger.warn(fields, 'attempt failed, trying again') : logger.info(fields, 'attempt failed');
      }
      case 'nodeAdded':
        nodeChanges.with({ change: 'added' }).add();
        return logger.info({ node_id: event.nodeId, address: event.address, incarnation: event.incarnation }, 'node found');
      case 'nodeRemoved':
        nodeChanges.with({ change: 'removed' }).add();
        return logger.info({ node_id: event.nodeId, reason: event.reason }, 'node removed');
      case 'nodeConnected':
        nodeChanges.with({ change: 'connected' }).add();
        return logger.info({ node_id: event.nodeId, address: event.address }, 'node connected');
      case 'nodeLost':
        nodeChanges.with({ change: 'lost' }).add();
        return logger.warn({ node_id: event.nodeId, reason: event.reason }, 'node lost');
      case 'canaryEnded':
        return logger.info({ node_id: event.nodeId, ok: event.ok, reason: event.reason }, 'canary drawn');
    }
  };
}
