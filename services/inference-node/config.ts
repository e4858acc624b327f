/** Every setting of a node with its default and the reason for it. */
import path from 'node:path';
import { isNodeId, readBusConfig } from '#bus';
import type { EnvReader } from '#runtime';
import { readTelemetryConfig } from '#telemetry';
import { readTlsPaths } from '#tls';

export type NodeConfig = ReturnType<typeof parseConfig>;

export interface ConfigDefaults {
  readonly hostName: string;
  readonly tempDir: string;
  /** Folder of the embedded model. */
  readonly modelDir: string;
  readonly terminal: boolean;
}

/** The system's limit of 107 bytes for the path of a unix socket, less the name of an engine's. */
const MAX_STATE_DIR_BYTES = 107 - '/engine-4194304-zzzzzzzzz-999999.sock'.length;
const SHA256 = /^[0-9a-f]{64}$/;

function readModelDirs(read: EnvReader, fallback: string): string[] {
  const text = read.string('DMESH_NODE_MODEL_DIR', fallback, 'Model folders to serve, separated as PATH is; the first is loaded at start.');
  const dirs = text.split(path.delimiter);
  if (dirs.includes(''))
    read.fault(`DMESH_NODE_MODEL_DIR: expected folders with "${path.delimiter}" between them, got ${JSON.stringify(text)}`);
  const resolved = dirs.map((dir) => path.resolve(dir));
  const twice = resolved.filter((dir, i) => resolved.indexOf(dir) < i);
  if (twice.length > 0) read.fault(`DMESH_NODE_MODEL_DIR: expected each folder once, got ${twice.join(', ')} twice`);
  return resolved;
}

export function parseConfig(read: EnvReader, defaults: ConfigDefaults) {
  const MiB = 1024 * 1024;
  const gpu = read.optionalString('DMESH_NODE_GPU', 'UUID or index of the GPU this node owns; none: one slot on the CPU.');
  const hostName = defaults.hostName.replace(/[^A-Za-z0-9_-]/g, '-').slice(0, 40);
  const gpuName = gpu === undefined ? 'cpu' : `gpu-${gpu.replace(/[^A-Za-z0-9_-]/g, '-').slice(0, 20)}`;
  const nodeId = read.string('DMESH_NODE_ID', `${hostName}-${gpuName}`, 'Name of this node: letters, digits, - and _; unique in the mesh.');
  if (!isNodeId(nodeId)) read.fault(`DMESH_NODE_ID: expected up to 64 of [A-Za-z0-9_-], got ${JSON.stringify(nodeId)}`);
  const canaryDigest = read.optionalString(
    'DMESH_NODE_CANARY_SHA256',
    'Digest every canary of the first folder must have; none: that of the first canary.',
  );
  if (canaryDigest !== undefined && !SHA256.test(canaryDigest)) {
    read.fault(`DMESH_NODE_CANARY_SHA256: expected 64 hexadecimal digits, got ${JSON.stringify(canaryDigest)}`);
  }
  const stateDir = path.resolve(
    read.string('DMESH_NODE_STATE_DIR', path.join(defaults.tempDir, 'dmesh'), 'Folder of GPU locks and engine sockets; one for a machine.'),
  );
  if (Buffer.byteLength(stateDir) > MAX_STATE_DIR_BYTES) {
    read.fault(
      `DMESH_NODE_STATE_DIR: expected at most ${MAX_STATE_DIR_BYTES} bytes, as sockets live there, got ${JSON.stringify(stateDir)}`,
    );
  }
  const config = {
    nodeId,
    gpu,
    stateDir,
    listen: read.address('DMESH_NODE_LISTEN', '127.0.0.1:0', 'host:port of the gRPC server; port 0 picks a free one.'),
    advertise: read.optionalAddress('DMESH_NODE_ADVERTISE', 'host:port that routers call; none: the bound address.'),
    httpListen: read.address('DMESH_NODE_HTTP_LISTEN', '127.0.0.1:0', 'host:port of /metrics, /healthz and /readyz.'),
    nats: readBusConfig(read),
    tls: readTlsPaths(read),
    zone: read.string('DMESH_NODE_ZONE', 'default', 'Routers of the same zone prefer this node when all else is equal.'),
    models: {
      dirs: readModelDirs(read, defaults.modelDir),
      loadedLimit: read.integer(
        'DMESH_NODE_LOADED_MODELS',
        1,
        { min: 1, max: 64 },
        'So many models are kept loaded, as the memory of the engine allows; the longest unused one makes room.',
      ),
    },
    engine: read.string(
      'DMESH_NODE_ENGINE',
      'onnx',
      'onnx, diffusers, or a command line that starts an engine; words are separated by spaces.',
    ),
    maxRequestBytes: read.bytes('DMESH_NODE_MAX_REQUEST', 1 * MiB, 'Larger requests are refused; a prompt needs a few KiB.'),
    idleReaderMs: read.durationMs('DMESH_NODE_IDLE_READER', 60_000, 'A caller who takes nothing of its answer for this long is cut off.'),
    slot: {
      grantTtlMs: read.durationMs('DMESH_NODE_GRANT_TTL', 500, 'A grant nobody uses goes to the next bid after this time.'),
      stagingWindowMs: read.durationMs(
        'DMESH_NODE_STAGING_WINDOW',
        30,
        'The slot is granted ahead this long before it is predicted to free.',
      ),
    },
    preemption: {
      mode: read.choice(
        'DMESH_NODE_PREEMPTION',
        'high',
        ['off', 'high', 'short'],
        'high: a running request is paused for a HIGH one; short: also for one much shorter than what it still needs.',
      ),
      maxPauseCount: read.integer('DMESH_NODE_MAX_PAUSES', 2, { min: 0, max: 100 }, 'A request is paused so often at most …'),
      maxPauseMs: read.durationMs('DMESH_NODE_MAX_PAUSE', 30_000, '… and so long in all, as predicted when a pause begins.'),
    },
    execution: {
      factor: read.number('DMESH_NODE_EXECUTION_FACTOR', 5, { min: 1, max: 100 }, 'A request may take this many times its prediction …'),
      floorMs: read.durationMs('DMESH_NODE_EXECUTION_FLOOR', 10_000, '… but never less than this …'),
      capMs: read.durationMs(
        'DMESH_NODE_EXECUTION_CAP',
        120_000,
        '… and never more, larger pictures than the default in proportion; then EXECUTION_TIMEOUT.',
      ),
      cancelGraceMs: read.durationMs('DMESH_NODE_CANCEL_GRACE', 2000, 'An engine that does not stop within this, or 10 steps, is killed.'),
      stepTimeoutMs: read.durationMs('DMESH_NODE_STEP_TIMEOUT', 30_000, 'An engine without progress for this, or 10 steps, is killed.'),
    },
    engineLife: {
      startTimeoutMs: read.durationMs('DMESH_NODE_ENGINE_START_TIMEOUT', 120_000, 'Longest time from start to listening.'),
      loadTimeoutMs: read.durationMs('DMESH_NODE_ENGINE_LOAD_TIMEOUT', 600_000, 'Longest time to load a model; then the engine is killed.'),
      canaryTimeoutMs: read.durationMs(
        'DMESH_NODE_CANARY_TIMEOUT',
        120_000,
        'Longest time for the canary; the first one warms the GPU up.',
      ),
      stopGraceMs: read.durationMs('DMESH_NODE_ENGINE_STOP_GRACE', 30_000, 'Time to stop after SIGINT, then SIGKILL.'),
      stableAfterMs: read.durationMs('DMESH_NODE_ENGINE_STABLE', 30_000, 'An engine that lived this long is restarted quickly again.'),
      memoryLimitBytes: read.bytes(
        'DMESH_NODE_ENGINE_MEMORY_LIMIT',
        0,
        'An engine older than 10 minutes that says it uses more is replaced between two requests; 0: never.',
      ),
      restart: {
        quickDelayMs: read.durationMs('DMESH_NODE_RESTART_QUICK', 100, 'Delay of the second of three quick restarts.'),
        slowDelayMs: read.durationMs('DMESH_NODE_RESTART_SLOW', 1000, 'First delay after them; doubles …'),
        maxDelayMs: read.durationMs('DMESH_NODE_RESTART_MAX', 60_000, '… up to this, for ever.'),
      },
      canaryDigest,
    },
    drainGraceMs: read.durationMs('DMESH_NODE_DRAIN_GRACE', 120_000, 'On SIGTERM: a running request may finish for this long.'),
    telemetry: readTelemetryConfig(read, defaults),
  };
  if (config.tls.cert !== undefined && config.tls.ca === undefined) {
    read.fault('DMESH_TLS_CA: expected together with DMESH_TLS_CERT, since a node lets in only who shows a certificate of it, got nothing');
  }
  const { floorMs, capMs } = config.execution;
  if (floorMs > capMs) {
    read.fault(`DMESH_NODE_EXECUTION_FLOOR: expected at most DMESH_NODE_EXECUTION_CAP, which is ${capMs} ms, got ${floorMs} ms`);
  }
  return read.done(config);
}
