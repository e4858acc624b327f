/** What the main thread and the worker that computes say to each other. */
import type { Code, ErrorDetails } from '#core';
import type { ModelInfo } from '#model-package';
import type { Drawing, Drawn } from '../pipeline/draw.js';
import type { AdapterUse } from '../pipeline/transformer-cache.js';

export interface WorkerSettings {
  readonly threadCount: number;
  readonly adapterSetCount: number;
  /** One int32: the number of the job to stop. Seen between forward passes, when no message could be. */
  readonly stopCell: SharedArrayBuffer;
  /** The same: the job to pause before its next step. */
  readonly pauseCell: SharedArrayBuffer;
}

export interface DrawOrder extends Drawing {
  readonly loras: readonly AdapterUse[];
}

/** `model` is its full name. */
export type ToWorker =
  | { readonly type: 'load'; readonly job: number; readonly modelDir: string }
  | { readonly type: 'unload'; readonly job: number; readonly model: string }
  | { readonly type: 'draw'; readonly job: number; readonly model: string; readonly order: DrawOrder }
  /** To a job that is paused. */
  | { readonly type: 'continue'; readonly job: number }
  | { readonly type: 'drop'; readonly job: number };

export interface Loaded {
  readonly info: ModelInfo;
  readonly determinismClass: string;
}

export interface StepMessage {
  readonly type: 'step';
  readonly job: number;
  readonly step: number;
  readonly total: number;
  readonly imageIndex: number;
  readonly stepMs: number;
}

export interface ImageMessage {
  readonly type: 'image';
  readonly job: number;
  readonly imageIndex: number;
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8ClampedArray<ArrayBuffer>;
}

/** A StatusError, which loses its class on the way between threads. */
export interface PlainError extends ErrorDetails {
  readonly code: Code;
  readonly reason: string;
  readonly message: string;
  /** For the log. */
  readonly cause?: string;
}

export type FromWorker =
  | { readonly type: 'started' }
  | StepMessage
  | { readonly type: 'paused'; readonly job: number }
  | ImageMessage
  | { readonly type: 'loaded'; readonly job: number; readonly loaded: Loaded }
  | { readonly type: 'unloaded'; readonly job: number }
  | { readonly type: 'drawn'; readonly job: number; readonly drawn: Drawn }
  | { readonly type: 'failed'; readonly job: number; readonly error: PlainError };
