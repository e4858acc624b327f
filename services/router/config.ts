import { readNatsUrl } from '#bus';
import type { EnvReader } from '#runtime';
import { readTelemetryConfig } from '#telemetry';

export type RouterConfig = ReturnType<typeof parseConfig>;

/** Every setting of a router with its default and the reason for it. */
export function parseConfig(read: EnvReader, defaults: { hostName: string; terminal: boolean }) {
  const MiB = 1024 * 1024;
  const config = {
    routerId: read.string('DMESH_ROUTER_ID', `router-${defaults.hostName}`, 'Name of this router in logs and on NATS.'),
    listen: read.address('DMESH_ROUTER_LISTEN', '127.0.0.1:50051', 'host:port of the gRPC server; port 0 picks a free one.'),
    httpListen: read.address('DMESH_ROUTER_HTTP_LISTEN', '127.0.0.1:9464', 'host:port of /metrics, /healthz and /readyz.'),
    natsUrl: readNatsUrl(read),
    zone: read.string('DMESH_ROUTER_ZONE', 'default', 'Nodes of the same zone win ties.'),
    maxRequestBytes: read.bytes('DMESH_ROUTER_MAX_REQUEST', 1 * MiB, 'Larger requests are refused; a prompt needs a few KiB.'),
    idleReaderMs: read.durationMs('DMESH_ROUTER_IDLE_READER', 60_000, 'A caller who takes nothing of its answer for this long is cut off.'),
    queue: {
      limit: read.integer('DMESH_ROUTER_QUEUE_LIMIT', 1000, { min: 0, max: 1_000_000 }, 'Waiting requests beyond this are QUEUE_FULL.'),
      timeoutMs: read.durationMs('DMESH_ROUTER_QUEUE_TIMEOUT', 300_000, 'Longest wait for a slot, then QUEUE_TIMEOUT.'),
      noNodesWaitMs: read.durationMs('DMESH_ROUTER_NO_NODES_WAIT', 10_000, 'Longest wait while no node could serve, then NO_NODES.'),
    },
    execution: {
      factor: read.number('DMESH_ROUTER_EXECUTION_FACTOR', 5, { min: 1, max: 100 }, 'An attempt may take this many times its prediction …'),
      floorMs: read.durationMs('DMESH_ROUTER_EXECUTION_FLOOR', 30_000, '… but never less than this …'),
      capMs: read.durationMs('DMESH_ROUTER_EXECUTION_CAP', 600_000, '… and never more; then EXECUTION_TIMEOUT.'),
    },
    cost: {
      priorMs: read.durationMs('DMESH_ROUTER_COST_PRIOR', 3000, 'Assumed time of a 1024², 8-step picture before any was seen.'),
    },
    retry: {
      maxNodes: read.integer('DMESH_ROUTER_RETRY_NODES', 3, { min: 1, max: 10 }, 'Nodes a request is tried on at most.'),
      ratio: read.number('DMESH_ROUTER_RETRY_RATIO', 0.2, { min: 0, max: 1 }, 'Retries under way, as a share of live requests.'),
      floorCount: read.integer('DMESH_ROUTER_RETRY_FLOOR', 3, { min: 0, max: 1000 }, 'Retries always allowed, however quiet the mesh.'),
    },
    breaker: {
      openMs: read.durationMs('DMESH_ROUTER_BREAKER_OPEN', 30_000, 'First ejection of a failing node; doubles on repeat up to 5m.'),
    },
    link: {
      keepaliveMs: read.durationMs('DMESH_ROUTER_KEEPALIVE', 1000, 'Ping interval to nodes; a frozen node is lost after twice this.'),
    },
    stopGraceMs: read.durationMs('DMESH_ROUTER_STOP_GRACE', 120_000, 'On SIGTERM: running requests may finish for this long.'),
    telemetry: readTelemetryConfig(read, defaults),
  };
  const { floorMs, capMs } = config.execution;
  if (floorMs > capMs) {
    read.fault(`DMESH_ROUTER_EXECUTION_FLOOR: expected at most DMESH_ROUTER_EXECUTION_CAP, which is ${capMs} ms, got ${floorMs} ms`);
  }
  return read.done(config);
}
