import { isNodeId, readBusConfig } from '#bus';
import { type EnvReader, isLoopback, parseDurationMs } from '#runtime';
import { readTelemetryConfig } from '#telemetry';
import { readTlsPaths } from '#tls';
import { readAdmissionConfig } from './admission-config.js';
import { readBlobConfig } from './blobs/config.js';
import { readWebhookConfig } from './webhook/config.js';

export type JobsConfig = ReturnType<typeof parseConfig>;

/** Every setting of the jobs service with its default and the reason for it. */
export function parseConfig(read: EnvReader, defaults: { hostName: string; terminal: boolean }) {
  const HOUR_MS = 3_600_000;
  const DAY_MS = 24 * HOUR_MS;
  const GiB = 1024 ** 3;
  const hostName = defaults.hostName.replace(/[^A-Za-z0-9_-]/g, '-').slice(0, 40);
  const retentionText = read.optionalString('DMESH_JOBS_RETENTION_TENANTS', 'Other times for some tenants, such as acme=24h,studio=720h.');
  const routersText = read.optionalString(
    'DMESH_JOBS_ROUTERS',
    'host:port of the routers that draw, separated by commas; none: those that announce themselves on NATS.',
  );
  const config = {
    replicaId: read.string('DMESH_JOBS_ID', `jobs-${hostName}`, 'Name of this replica in logs and on NATS; unique among them.'),
    listen: read.address('DMESH_JOBS_LISTEN', '127.0.0.1:50061', 'host:port of the gRPC server; port 0 picks a free one.'),
    advertise: read.optionalAddress('DMESH_JOBS_ADVERTISE', 'host:port that routers call; none: the bound address.'),
    httpListen: read.address('DMESH_JOBS_HTTP_LISTEN', '127.0.0.1:9466', 'host:port of /metrics, /healthz and /readyz.'),
    nats: readBusConfig(read),
    tls: {
      ...readTlsPaths(read),
      callerCa: read.optionalString(
        'DMESH_JOBS_CALLER_CA',
        'PEM file of the CA whose certificates callers must show; none: they need none.',
      ),
      routerName: read.optionalString(
        'DMESH_JOBS_ROUTER_NAME',
        'With TLS: name that the certificate of every router must hold; none: the host of its address.',
      ),
    },
    routers: parseAddresses(read, routersText),
    routerToken: read.optionalString(
      'DMESH_JOBS_ROUTER_TOKEN',
      'Shown to routers: a token that may act for tenants ("dmesh token add --acts-for-all").',
    ),
    routerTokenFile: read.optionalString(
      'DMESH_JOBS_ROUTER_TOKEN_FILE',
      'File with that token, in place of DMESH_JOBS_ROUTER_TOKEN. Followed as it changes.',
    ),
    // A prompt needs a few KiB, a batch of a thousand a few MiB.
    maxRequestBytes: read.bytes('DMESH_JOBS_MAX_REQUEST', 16 * 1024 ** 2, 'Larger requests are refused.'),
    // As routers have it.
    idleReaderMs: read.durationMs('DMESH_JOBS_IDLE_READER', 60_000, 'A caller who takes nothing of its answer for this long is cut off.'),
    records: {
      replicaCount: read.integer('DMESH_JOBS_NATS_REPLICAS', 1, { min: 1, max: 5 }, 'NATS servers that keep each record; 3 in a cluster.'),
      // A record is a few KiB: half a million jobs.
      maxBytes: read.bytes('DMESH_JOBS_NATS_MAX', 2 * GiB, 'Room for records in JetStream; beyond it jobs are refused.'),
    },
    retry: {
      retryCount: read.integer('DMESH_JOBS_RETRIES', 3, { min: 0, max: 100 }, 'Times a job is tried again after a failure of the mesh.'),
      retryDelayMs: read.durationMs('DMESH_JOBS_RETRY_DELAY', 10_000, 'Before the first of these; doubled for each further one.'),
    },
    admission: readAdmissionConfig(read),
    open: read.choice(
      'DMESH_JOBS_OPEN',
      'no',
      ['yes', 'no'],
      'yes: listens beyond this machine also without a token file or CA of callers.',
    ),
    retention: {
      defaultMs: read.durationMs('DMESH_JOBS_RETENTION', 7 * DAY_MS, 'A job is forgotten, with its pictures, so long after its end.'),
      byTenant: parseTenantTimes(read, retentionText),
    },
    blobs: readBlobConfig(read),
    webhook: readWebhookConfig(read),
    stopGraceMs: read.durationMs(
      'DMESH_JOBS_STOP_GRACE',
      30_000,
      'On SIGTERM: what nodes draw may finish for this long; the rest is left to others.',
    ),
    telemetry: readTelemetryConfig(read, defaults),
  };
  const { replicaId } = config;
  if (!isNodeId(replicaId)) read.fault(`DMESH_JOBS_ID: expected up to 64 of [A-Za-z0-9_-], got ${JSON.stringify(replicaId)}`);
  const { cert, ca, callerCa, routerName } = config.tls;
  if (callerCa !== undefined && cert === undefined) {
    read.fault('DMESH_JOBS_CALLER_CA: expected together with DMESH_TLS_CERT, got it alone');
  }
  if (routerName !== undefined && ca === undefined) {
    read.fault('DMESH_JOBS_ROUTER_NAME: expected together with DMESH_TLS_CA, got it alone');
  }
  if (config.routerToken !== undefined && config.routerTokenFile !== undefined) {
    read.fault('DMESH_JOBS_ROUTER_TOKEN_FILE: expected without DMESH_JOBS_ROUTER_TOKEN, got both');
  }
  const isOpen = config.admission.tokenFile === undefined && callerCa === undefined;
  if (isOpen && config.open === 'no' && !isLoopback(config.listen)) {
    read.fault(
      `DMESH_JOBS_LISTEN: expected an address of this machine alone (127.0.0.1) while neither DMESH_JOBS_TOKEN_FILE nor ` +
        `DMESH_JOBS_CALLER_CA is set, got ${JSON.stringify(config.listen)}; DMESH_JOBS_OPEN=yes lets everybody in`,
    );
  }
  return read.done(config);
}

const ADDRESS = /^(?:\[[0-9A-Fa-f:.]+\]|[^\s:[\]]+):\d{1,5}$/;

function parseAddresses(read: EnvReader, text: string | undefined): readonly string[] | undefined {
  const addresses = text?.split(',').map((item) => item.trim());
  for (const address of addresses ?? []) {
    if (!ADDRESS.test(address))
      read.fault(`DMESH_JOBS_ROUTERS: expected host:port, several separated by commas, got ${JSON.stringify(address)}`);
  }
  return addresses;
}

function parseTenantTimes(read: EnvReader, text: string | undefined): ReadonlyMap<string, number> {
  const times = new Map<string, number>();
  for (const item of text?.split(',') ?? []) {
    const [, tenant = '', duration = ''] = /^([A-Za-z0-9._-]+)=(\S+)$/.exec(item.trim()) ?? [];
    const ms = parseDurationMs(duration);
    if (ms === undefined) {
      read.fault(`DMESH_JOBS_RETENTION_TENANTS: expected tenant=duration such as acme=24h, got ${JSON.stringify(item)}`);
    } else times.set(tenant, ms);
  }
  return times;
}
