/** The node as the mesh sees it over NATS: beats, leave, control, and its entry among NATS services. */
import {
  type Beat,
  BeatPublisher,
  type Bus,
  type BusEvent,
  type ControlAction,
  connectBus,
  type EngineReport,
  type GpuReport,
  makeIncarnation,
  registerService,
  serveControl,
} from '#bus';
import type { Clock, Emit, Random } from '#core';
import { type Part, part } from '#runtime';
import type { ClientTls } from '#tls';
import type { NodeConfig } from './config.js';
import type { Slot } from './domain/slot.js';
import type { Catalogue } from './engine/catalogue.js';
import type { Executor } from './engine/executor.js';
import type { EnginePhase, Supervisor } from './engine/supervisor.js';
import type { NodeEvent } from './events.js';
import type { Intake } from './intake.js';

export interface MembershipOptions {
  readonly config: NodeConfig;
  readonly clock: Clock;
  readonly random: Random;
  readonly emit: Emit<NodeEvent | BusEvent>;
  /** For NATS; absent: with the CAs that Node knows, where NATS wants TLS. */
  readonly tls: ClientTls | undefined;
  /** Start of this process; orders the lives of a node. */
  readonly startedAtEpochMs: number;
  /** host:port that routers call; known once the server listens. */
  readonly address: () => string;
  readonly gpu: () => GpuReport | null;
  readonly slot: Slot;
  readonly supervisor: Supervisor;
  readonly catalogue: Catalogue;
  readonly executor: Executor;
  readonly intake: Intake;
}

const VERSION = '0.1.0';

/** Does not wait for NATS: the node serves whoever knows its address, and beats when NATS is there. */
export function joinMesh(options: MembershipOptions): Part & { changed(): void } {
  const { config, clock, random, emit } = options;
  const { nodeId } = config;
  const incarnation = makeIncarnation(options.startedAtEpochMs, random);
  let bus: Bus | undefined;
  let beats: BeatPublisher | undefined;
  let undo: (() => void)[] = [];
  return {
    ...part('bus', {
      start: async () => {
        bus = connectBus({ ...config.nats, tls: options.tls, name: nodeId, clock, random, emit });
        beats = new BeatPublisher({ bus, clock, random, read: () => beatOf(options, incarnation) });
        undo = [
          serveControl({ bus, nodeId, handle: (action) => obey(action, options) }),
          registerService(
            bus,
            {
              name: 'dmesh-node',
              version: VERSION,
              description: 'Draws pictures on one GPU',
              metadata: () => ({ node_id: nodeId, incarnation, grpc_addr: options.address(), zone: config.zone }),
            },
            emit,
          ),
        ];
        beats.start();
      },
      drain: async () => beats?.stop(),
      close: async () => {
        await beats?.stop();
        for (const end of undo) end();
        await bus?.close();
      },
    }),
    changed: () => beats?.changed(),
  };
}

function obey(action: ControlAction, { emit, intake }: MembershipOptions): void {
  emit({ type: 'controlReceived', action });
  if (action === 'drain') void intake.drain('control');
  else if (action === 'resume') intake.resume('control');
  else if (action === 'reload') intake.reload();
  else action satisfies never;
}

function beatOf(options: MembershipOptions, incarnation: string): Omit<Beat, 'seq'> {
  const { config, catalogue, slot, supervisor, executor, intake } = options;
  const { slotCount, busyCount } = slot.snapshot;
  const known = supervisor.known;
  return {
    nodeId: config.nodeId,
    incarnation,
    address: options.address(),
    zone: config.zone,
    engine: {
      name: known?.name ?? '',
      version: known?.version ?? '',
      state: STATE_OF_PHASE[supervisor.phase],
      determinismClass: catalogue.newest?.determinismClass ?? '',
      restartCount: supervisor.restartCount,
    },
    models: known ? catalogue.models.map(({ info, loaded, loadMs }) => ({ ...info, loaded, loadMs })) : [],
    slotCount,
    busyCount,
    running: [...executor.progress].map(({ requestId, step, total, remainingMs, paused }) => ({
      requestId,
      step,
      total,
      remainingMs: Math.round(remainingMs()),
      ...(paused() ? { paused: true } : {}),
    })),
    draining: intake.draining,
    gpu: options.gpu(),
    completedCount: executor.completedCount,
    failedCount: executor.failedCount,
  };
}

/** A canary after a fault takes milliseconds and looks like a restart from far away: no work now, soon again. */
const STATE_OF_PHASE: Readonly<Record<EnginePhase, EngineReport['state']>> = {
  starting: 'starting',
  ready: 'ready',
  checking: 'restarting',
  restarting: 'restarting',
  failed: 'failed',
  stopped: 'restarting',
};
