/** The node as the mesh sees it over NATS: beats, leave, control, and its entry among NATS services. */
import type { GpuReport } from '#bus';
import type { Clock, Emit, Random } from '#core';
import { type Part, part } from '#runtime';
import type { Logger, Metrics } from '#telemetry';
import type { NodeConfig } from './config.js';
import type { Slot } from './domain/slot.js';
import type { Executor } from './engine/executor.js';
import type { Supervisor } from './engine/supervisor.js';
import type { NodeEvent } from './events.js';
import type { Intake } from './intake.js';

export interface MembershipOptions {
  readonly config: NodeConfig;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly emit: Emit<NodeEvent>;
  readonly startedAtEpochMs: number;
  /** host:port that routers call. */
  readonly address: () => string;
  readonly gpu: () => GpuReport | null;
  readonly slot: Slot;
  readonly supervisor: Supervisor;
  readonly executor: Executor;
  readonly intake: Intake;
}

export function joinMesh(_options: MembershipOptions): Part & { changed(): void } {
  return { ...part('bus', {}), changed: () => {} };
}
