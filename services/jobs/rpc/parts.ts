/** What the methods of JobsService are made of; put together in build.ts. */
import type { Clock } from '#core';
import type { Admission } from '../admission.js';
import type { Blobs } from '../blobs/blobs.js';
import type { Bounds } from '../bounds.js';
import type { JobIndex } from '../index/job-index.js';
import type { Waits } from '../run/waits.js';
import type { JobRecords } from '../store/job-records.js';
import type { Callers } from './callers.js';
import type { Reader } from './reader.js';

/** How far a running job is, as its replica told last. */
export interface Step {
  readonly attempt: number;
  readonly step: number;
  readonly totalSteps: number;
}

export interface Steps {
  /** By the key of its record; undefined: not heard yet. */
  stepOf(key: string): Step | undefined;
  /** Returns what ends it. */
  onStep(key: string, listener: () => void): () => void;
}

export interface RpcParts {
  readonly clock: Clock;
  readonly wallNow: () => number;
  readonly callers: Callers;
  readonly admission: Admission;
  readonly bounds: Bounds;
  readonly records: JobRecords;
  readonly reader: Reader;
  readonly index: JobIndex;
  readonly steps: Steps;
  readonly waits: Pick<Waits, 'of' | 'onChange'>;
  readonly blobs: Pick<Blobs, 'delete' | 'link' | 'readFrom'>;
  /** For a job that is retried. */
  readonly expireAfterMs: number;
}
