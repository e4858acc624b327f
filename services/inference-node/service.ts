/**
 * A node, composed: it locks its GPU, keeps an engine alive on it, offers one slot to routers, and
 * tells the mesh how it is. Parts start in the order of the list and leave in reverse:
 *
 *   on stop: refuse new work, finish what runs → say goodbye on the bus → close the server
 *            → stop the engine → give the GPU back
 */
import path from 'node:path';
import type { BusEvent } from '#bus';
import { generation, node } from '#contracts';
import type { Clock, Emit, Random } from '#core';
import { addHealth, addReflection, Server } from '#grpc';
import { type Env, Lifecycle, part } from '#runtime';
import { AdminHttp, createMetrics, type Logger, observeCalls, observeTls, type Readiness } from '#telemetry';
import { TlsSource } from '#tls';
import type { NodeConfig } from './config.js';
import { CostEstimate } from './domain/cost-estimate.js';
import { Slot } from './domain/slot.js';
import { Catalogue } from './engine/catalogue.js';
import { removeDeadSockets } from './engine/dead-sockets.js';
import { Executor } from './engine/executor.js';
import { Loader } from './engine/loader.js';
import { watchMemory } from './engine/memory-watch.js';
import { Supervisor } from './engine/supervisor.js';
import type { NodeEvent } from './events.js';
import { lockGpu } from './gpu/lock.js';
import { GpuWatch, queryGpu } from './gpu/nvidia-smi.js';
import { Intake } from './intake.js';
import { joinMesh } from './membership.js';
import { observe } from './observe.js';
import { AttachedRouters, attach } from './rpc/attach.js';
import { generate } from './rpc/generate.js';
import { generateStream } from './rpc/generate-stream.js';
import { listModels } from './rpc/list-models.js';
import type { GenerationParts } from './rpc/perform.js';

export interface NodeOptions {
  readonly config: NodeConfig;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly process: { readonly pid: number; readonly env: Env };
  /** The engine's program and arguments. */
  readonly engineCommand: readonly [string, ...string[]];
  /** Start of this process; orders the lives of a node. */
  readonly startedAtEpochMs: number;
}

export interface InferenceNode {
  readonly lifecycle: Lifecycle;
  /** Known once started. */
  readonly addresses: () => { grpc: string; http: string };
}

/** Lease ids of a later life are higher, as long as no life gives out more than this many a millisecond. */
const LEASES_PER_MS = 1000;
const GPU_INTERVAL_MS = 5000;
/** Set for this process; of no use, or misleading, to an engine. */
const PRIVATE_SETTINGS = /^(DMESH_NODE_|DMESH_ROUTER_|DMESH_ENGINE_SOCKET$|DMESH_PARENT_PID$|DMESH_TLS_|NATS_)/;

/** Reads the certificates, builds the rest. */
export async function buildNode(options: NodeOptions): Promise<InferenceNode> {
  const { config, clock, random, logger } = options;
  const metrics = createMetrics({ service: 'inference-node', defaultMetrics: true });
  const emit: Emit<NodeEvent | BusEvent> = observe({ logger, metrics, sources: () => sources });

  const certificates = new TlsSource({ paths: config.tls, clock, emit: observeTls({ metrics, logger }) });
  await certificates.start();
  const withTls = config.tls.cert !== undefined;

  const lifeName = Math.floor(options.startedAtEpochMs).toString(36);
  const routers = new AttachedRouters();
  const estimate = new CostEstimate();
  // Whatever changes here, routers hear of it on their stream and the mesh in the next beat.
  const changed = () => {
    intake.settle();
    routers.slotChanged();
    mesh.changed();
  };
  const slot = new Slot({
    ...config.slot,
    preemption: config.preemption,
    clock,
    firstLeaseId: BigInt(Math.floor(options.startedAtEpochMs) * LEASES_PER_MS),
    onChange: () => changed(),
  });
  const catalogue = new Catalogue({ ...config.models, emit, onChange: () => changed() });
  const supervisor = new Supervisor({
    ...config.engineLife,
    command: options.engineCommand,
    env: () => engineEnv(options, gpu?.latest?.uuid),
    // Process ids alone may repeat: over time, and in containers that share the folder.
    socketPath: (startCount) => path.join(config.stateDir, `engine-${options.process.pid}-${lifeName}-${startCount}.sock`),
    catalogue,
    clock,
    random,
    emit,
    estimate,
    onChange: () => slot.setReady(supervisor.phase === 'ready'),
  });
  const { cancelGraceMs, stepTimeoutMs, ...limits } = config.execution;
  const executor = new Executor({ clock, emit, supervisor, estimate, limits, cancelGraceMs, stepTimeoutMs });
  const loader = new Loader({ clock, catalogue, supervisor });
  const intake = new Intake({ slot, supervisor, executor, emit });

  const server = new Server({
    clock,
    emit: observeCalls({ metrics, logger }),
    maxRequestBytes: config.maxRequestBytes,
    idleReaderMs: config.idleReaderMs,
    tls: withTls ? certificates.server('ca') : undefined,
  });
  addHealth(server, { clock, isReady: () => readiness(slot, supervisor).ready });
  const parts: GenerationParts = {
    nodeId: config.nodeId,
    clock,
    random,
    emit,
    slot,
    supervisor,
    catalogue,
    loader,
    executor,
    estimate,
    onServed: (routerId, served) => routers.served(routerId, served),
  };
  server.add(generation.ImageGenerationServiceService, {
    generate: intake.counted(generate(parts)),
    generateStream: intake.counted(generateStream(parts)),
    listModels: listModels({ catalogue, supervisor }),
  });
  server.add(node.InferenceNodeServiceService, { attach: attach({ slot, clock, emit, routers }) }, { endless: ['attach'] });
  addReflection(server, ['diffusionmesh.v1.ImageGenerationService', 'diffusionmesh.v1.InferenceNodeService']);

  let address = '';
  const gpu = config.gpu === undefined ? undefined : new GpuWatch(config.gpu, { clock, intervalMs: GPU_INTERVAL_MS, query: queryGpu });
  const mesh = joinMesh({
    config,
    clock,
    random,
    emit,
    startedAtEpochMs: options.startedAtEpochMs,
    tls: withTls ? certificates.client() : undefined,
    address: () => config.advertise ?? address,
    gpu: () => gpu?.latest ?? null,
    slot,
    supervisor,
    catalogue,
    executor,
    intake,
  });
  const http = new AdminHttp({ listen: config.httpListen, metrics, readiness: () => readiness(slot, supervisor) });
  const sources = {
    slotBusy: () => slot.snapshot.busyCount > 0,
    enginePhase: () => supervisor.phase,
    models: () => catalogue.models,
    unusableModelCount: () => catalogue.unusableCount,
    routerCount: () => routers.count,
    gpu: () => gpu?.latest ?? null,
  };

  let unlock = async () => {};
  let unwatch = () => {};
  const lifecycle = new Lifecycle(
    [
      part('certificates', { close: async () => certificates.close() }),
      part('gpu lock', {
        start: async () => {
          await gpu?.start();
          const name = config.gpu === undefined ? `cpu-slot-${config.nodeId}` : `gpu-${gpu?.latest?.uuid ?? config.gpu}`;
          await removeDeadSockets(config.stateDir, options.startedAtEpochMs);
          unlock = await lockGpu({ dir: config.stateDir, name, nodeId: config.nodeId, pid: options.process.pid, clock });
        },
        close: async () => {
          gpu?.stop();
          await unlock();
        },
      }),
      part('engine', { start: async () => supervisor.start(), drain: () => supervisor.stop(), close: () => supervisor.stop() }),
      part('memory watch', {
        start: async () => {
          const { memoryLimitBytes: limitBytes } = config.engineLife;
          unwatch = watchMemory({ limitBytes, clock, emit, engine: () => supervisor.engine, reload: () => intake.reload() });
        },
        close: async () => unwatch(),
      }),
      http,
      part('grpc server', {
        start: async () => {
          const port = await server.listen(config.listen);
          address = `${config.listen.slice(0, config.listen.lastIndexOf(':'))}:${port}`;
        },
        drain: () => server.drain(),
        close: () => server.close(),
      }),
      mesh,
      part('intake', { drain: () => intake.drain('SIGTERM') }),
    ],
    { clock, graceMs: config.drainGraceMs },
  );
  return { lifecycle, addresses: () => ({ grpc: address, http: http.address }) };
}

/** By UUID where it is known: indexes of CUDA and of nvidia-smi may differ. */
function engineEnv({ config, process }: NodeOptions, gpuUuid: string | undefined): Env {
  const inherited = Object.entries(process.env).filter(([name]) => !PRIVATE_SETTINGS.test(name));
  return {
    ...Object.fromEntries(inherited),
    // An engine on the CPU must not find a GPU that belongs to another node.
    CUDA_VISIBLE_DEVICES: gpuUuid ?? config.gpu ?? '',
    DMESH_ENGINE_PARENT_PID: String(process.pid),
    DMESH_LOG_FORMAT: 'json',
  };
}

function readiness(slot: Slot, supervisor: Supervisor): Readiness {
  if (slot.snapshot.accepting) return { ready: true };
  return { ready: false, reason: supervisor.phase === 'ready' ? 'draining' : `engine ${supervisor.phase}` };
}
