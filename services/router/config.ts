import { isNodeId, readBusConfig } from '#bus';
import { type EnvReader, isLoopback } from '#runtime';
import { readTelemetryConfig } from '#telemetry';
import { readTlsPaths } from '#tls';

export type RouterConfig = ReturnType<typeof parseConfig>;

/** Every setting of a router with its default and the reason for it. */
export function parseConfig(read: EnvReader, defaults: { hostName: string; terminal: boolean }) {
  const MiB = 1024 * 1024;
  const hostName = defaults.hostName.replace(/[^A-Za-z0-9_-]/g, '-').slice(0, 40);
  const routerId = read.string(
    'DMESH_ROUTER_ID',
    `router-${hostName}`,
    'Name of this router in logs and on NATS: letters, digits, - and _; unique in the mesh.',
  );
  if (!isNodeId(routerId)) read.fault(`DMESH_ROUTER_ID: expected up to 64 of [A-Za-z0-9_-], got ${JSON.stringify(routerId)}`);
  const config = {
    routerId,
    listen: read.address('DMESH_ROUTER_LISTEN', '127.0.0.1:50051', 'host:port of the gRPC server; port 0 picks a free one.'),
    advertise: read.optionalAddress('DMESH_ROUTER_ADVERTISE', 'host:port that the jobs service calls; none: the bound address.'),
    httpListen: read.address('DMESH_ROUTER_HTTP_LISTEN', '127.0.0.1:9464', 'host:port of /metrics, /healthz and /readyz.'),
    nats: readBusConfig(read),
    tls: {
      ...readTlsPaths(read),
      callerCa: read.optionalString(
        'DMESH_ROUTER_CALLER_CA',
        'PEM file of the CA whose certificates callers must show; none: they need none.',
      ),
      nodeName: read.optionalString(
        'DMESH_ROUTER_NODE_NAME',
        'With TLS: name that the certificate of every node must hold; none: the host of its address.',
      ),
    },
    zone: read.string('DMESH_ROUTER_ZONE', 'default', 'Nodes of the same zone win ties.'),
    maxRequestBytes: read.bytes('DMESH_ROUTER_MAX_REQUEST', 16 * MiB, 'Larger requests are refused; a batch of 1000 jobs needs a few MiB.'),
    idleReaderMs: read.durationMs('DMESH_ROUTER_IDLE_READER', 60_000, 'A caller who takes nothing of its answer for this long is cut off.'),
    cacheBytes: read.bytes('DMESH_ROUTER_CACHE', 0, 'Recent answers kept for unary requests that repeat, seed included; 0: none.'),
    access: {
      tokenFile: read.optionalString(
        'DMESH_ROUTER_TOKEN_FILE',
        'Tokens of those who may call, written by "dmesh token"; none: everybody may. Followed as it changes.',
      ),
      open: read.choice(
        'DMESH_ROUTER_OPEN',
        'no',
        ['yes', 'no'],
        'yes: listens beyond this machine also without a token file or CA of callers.',
      ),
      // Off by default: without a token file only this machine calls, where all share one address and tests and benches press.
      anonymousRatePerSec: read.number(
        'DMESH_ROUTER_ANONYMOUS_RATE',
        0,
        { min: 0, max: 1_000_000 },
        'Without a token file: requests a second from each address; 0: no limit.',
      ),
      auditLog: read.optionalString(
        'DMESH_ROUTER_AUDIT_LOG',
        'File that gets one JSON line for every request that was let in and every order of an operator.',
      ),
    },
    order: {
      shares: {
        high: read.number('DMESH_ROUTER_SHARE_HIGH', 0.6, { min: 0, max: 1 }, 'Part of the GPU time that HIGH is sure of while all wait.'),
        normal: read.number('DMESH_ROUTER_SHARE_NORMAL', 0.3, { min: 0, max: 1 }, 'The same for NORMAL.'),
        low: read.number('DMESH_ROUTER_SHARE_LOW', 0.1, { min: 0, max: 1 }, 'The same for LOW: it never starves.'),
      },
      // Three times as long as on an idle GPU is still a good answer.
      patienceFactor: read.number(
        'DMESH_ROUTER_PATIENCE',
        3,
        { min: 0, max: 100 },
        'Within a tenant, who is due first goes first: arrival + this × prediction; 0: first come, first served.',
      ),
      promoteAfterMs: read.durationMs('DMESH_ROUTER_PROMOTE_AFTER', 60_000, 'After waiting this long a request moves up one class.'),
    },
    queue: {
      limits: {
        perSlotCount: read.integer(
          'DMESH_ROUTER_QUEUE_PER_NODE',
          50,
          { min: 0, max: 100_000 },
          'Requests that may wait for each slot of the mesh …',
        ),
        minCount: read.integer(
          'DMESH_ROUTER_QUEUE_MIN',
          250,
          { min: 0, max: 1_000_000 },
          '… and at least so many; beyond that, QUEUE_FULL.',
        ),
        classRatio: {
          high: read.number('DMESH_ROUTER_QUEUE_HIGH', 1, { min: 0, max: 1 }, 'Part of those places that HIGH may fill.'),
          normal: read.number('DMESH_ROUTER_QUEUE_NORMAL', 1, { min: 0, max: 1 }, 'The same for NORMAL.'),
          low: read.number('DMESH_ROUTER_QUEUE_LOW', 1, { min: 0, max: 1 }, 'The same for LOW.'),
        },
      },
      timeoutMs: read.durationMs('DMESH_ROUTER_QUEUE_TIMEOUT', 300_000, 'Longest wait for a slot, then QUEUE_TIMEOUT.'),
      noNodesWaitMs: read.durationMs('DMESH_ROUTER_NO_NODES_WAIT', 10_000, 'Longest wait while no node could serve, then NO_NODES.'),
    },
    execution: {
      factor: read.number('DMESH_ROUTER_EXECUTION_FACTOR', 5, { min: 1, max: 100 }, 'An attempt may take this many times its prediction …'),
      floorMs: read.durationMs('DMESH_ROUTER_EXECUTION_FLOOR', 30_000, '… but never less than this …'),
      capMs: read.durationMs(
        'DMESH_ROUTER_EXECUTION_CAP',
        120_000,
        '… and never more, larger pictures than the default in proportion; then EXECUTION_TIMEOUT.',
      ),
      // As long as a node's own limit: it is the one to know why.
      loadTimeoutMs: read.durationMs(
        'DMESH_ROUTER_LOAD_TIMEOUT',
        600_000,
        'So much longer may it take on a node that may have to load the model first.',
      ),
    },
    cost: {
      priorMs: read.durationMs('DMESH_ROUTER_COST_PRIOR', 3000, 'Assumed time of a 1024², 8-step picture before any was seen.'),
    },
    slowness: {
      slowRatio: read.number(
        'DMESH_ROUTER_SLOW_RATIO',
        1.5,
        { min: 1, max: 100 },
        'A node that takes more than this many times what it should, by its own past and its device, gets less work.',
      ),
      quarantineRatio: read.number(
        'DMESH_ROUTER_QUARANTINE_RATIO',
        3,
        { min: 1, max: 1000 },
        'Past this it gets none but canaries, until one takes less than two thirds of it.',
      ),
    },
    retry: {
      maxNodes: read.integer('DMESH_ROUTER_RETRY_NODES', 3, { min: 1, max: 10 }, 'Nodes a request is tried on at most.'),
      ratio: read.number('DMESH_ROUTER_RETRY_RATIO', 0.2, { min: 0, max: 1 }, 'Retries under way, as a share of live requests.'),
      floorCount: read.integer('DMESH_ROUTER_RETRY_FLOOR', 3, { min: 0, max: 1000 }, 'Retries always allowed, however quiet the mesh.'),
    },
    hedge: {
      // A second GPU is spent on a suspicion: for those who said that they are in a hurry.
      who: read.choice(
        'DMESH_ROUTER_HEDGE',
        'high',
        ['high', 'off'],
        'high: HIGH whose node falls silent is drawn on an idle one as well.',
      ),
      factor: read.number(
        'DMESH_ROUTER_HEDGE_FACTOR',
        2,
        { min: 1, max: 100 },
        'Silent: nothing heard for this many times the predicted time of a step, or of an answer that comes in one piece …',
      ),
      floorMs: read.durationMs('DMESH_ROUTER_HEDGE_FLOOR', 1000, '… and at least for this long; looked at again as often.'),
    },
    breaker: {
      openMs: read.durationMs('DMESH_ROUTER_BREAKER_OPEN', 30_000, 'First ejection of a failing node; doubles on repeat up to 5m.'),
    },
    link: {
      connectTimeoutMs: read.durationMs(
        'DMESH_ROUTER_CONNECT_TIMEOUT',
        10_000,
        'Longest time to connect to a node, twice DMESH_ROUTER_KEEPALIVE if that is less; then another is asked.',
      ),
      keepaliveMs: read.durationMs('DMESH_ROUTER_KEEPALIVE', 1000, 'Ping interval to nodes; a frozen node is lost after twice this.'),
    },
    stopGraceMs: read.durationMs('DMESH_ROUTER_STOP_GRACE', 120_000, 'On SIGTERM: running requests may finish for this long.'),
    telemetry: readTelemetryConfig(read, defaults),
  };
  const { floorMs, capMs } = config.execution;
  if (floorMs > capMs) {
    read.fault(`DMESH_ROUTER_EXECUTION_FLOOR: expected at most DMESH_ROUTER_EXECUTION_CAP, which is ${capMs} ms, got ${floorMs} ms`);
  }
  const { slowRatio, quarantineRatio } = config.slowness;
  if (slowRatio > quarantineRatio) {
    read.fault(`DMESH_ROUTER_SLOW_RATIO: expected at most DMESH_ROUTER_QUARANTINE_RATIO, which is ${quarantineRatio}, got ${slowRatio}`);
  }
  const { cert, ca, callerCa, nodeName } = config.tls;
  if (callerCa !== undefined && cert === undefined)
    read.fault('DMESH_ROUTER_CALLER_CA: expected together with DMESH_TLS_CERT, got it alone');
  if (nodeName !== undefined && ca === undefined) {
    read.fault('DMESH_ROUTER_NODE_NAME: expected together with DMESH_TLS_CA, got it alone');
  }
  // Tokens or certificates: somebody decides who may call.
  const open = config.access.tokenFile === undefined && callerCa === undefined;
  if (open && config.access.open === 'no' && !isLoopback(config.listen)) {
    read.fault(
      `DMESH_ROUTER_LISTEN: expected an address of this machine alone (127.0.0.1) while neither DMESH_ROUTER_TOKEN_FILE nor ` +
        `DMESH_ROUTER_CALLER_CA is set, got ${JSON.stringify(config.listen)}; DMESH_ROUTER_OPEN=yes lets everybody in`,
    );
  }
  return read.done(config);
}
