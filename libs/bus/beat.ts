/**
 * What a node tells the mesh every second and at every change. JSON, so that an operator can read it
 * with `nats sub 'dmesh.>'`. Images and requests never travel on NATS.
 */
import type { ModelInfo } from '#model-package';

export interface Beat {
  readonly nodeId: string;
  /** Start time of the process in milliseconds, then "-" and a random tiebreak; later starts sort higher. */
  readonly incarnation: string;
  /** Rises by one with every beat of an incarnation. */
  readonly seq: number;
  /** host:port of the node's gRPC server. */
  readonly address: string;
  readonly zone: string;
  readonly engine: EngineReport;
  readonly models: readonly ModelReport[];
  readonly slotCount: number;
  readonly busyCount: number;
  /** Requests that run or are paused, with progress. */
  readonly running: readonly RunningReport[];
  readonly draining: boolean;
  readonly gpu: GpuReport | null;
  readonly completedCount: number;
  readonly failedCount: number;
}

/** A node's last word: it will not beat again under this incarnation. */
export interface Leave {
  readonly nodeId: string;
  readonly incarnation: string;
}

export interface EngineReport {
  /** Such as "onnx"; empty until the engine has said so. */
  readonly name: string;
  readonly version: string;
  readonly state: 'starting' | 'ready' | 'restarting' | 'failed';
  readonly determinismClass: string;
  readonly restartCount: number;
}

/** A model that the node draws with. */
export interface ModelReport extends ModelInfo {
  /** In the engine's memory, or on its way there. Absent: it is. */
  readonly loaded?: boolean;
  /** How long a request that needs it waits until it is loaded: measured the last time, or guessed. Milliseconds; absent: 0. */
  readonly loadMs?: number;
}

export interface RunningReport {
  readonly requestId: string;
  readonly step: number;
  readonly total: number;
  /** Predicted time to its end, milliseconds from this beat. */
  readonly remainingMs: number;
  /** It gave way to another and goes on after that. */
  readonly paused?: boolean;
}

export interface GpuReport {
  readonly uuid: string;
  readonly name: string;
  readonly memoryTotalBytes: number;
  readonly memoryUsedBytes: number;
  /** The most seen in use since the node started. Absent: not known. */
  readonly memoryPeakBytes?: number;
  /** 0..1 */
  readonly utilisationRatio: number;
  readonly temperatureCelsius: number;
}
