/** What running asks of the rest of the service: the records, what the index knows of each job, and the pictures. */
import type { Priority } from '#scheduling';
import type { Change, Job, StateKind } from '../domain/job.js';

/** A job in short, as every replica keeps it in memory. */
export interface JobEntry {
  /** Of its record. */
  readonly key: string;
  readonly tenant: string;
  readonly jobId: string;
  readonly kind: StateKind;
  readonly priority: Priority;
  /** As asked for: perhaps a route. */
  readonly model: string;
  readonly submittedAtMs: number;
  readonly expiresAtMs: number;
  readonly notBeforeMs: number;
  readonly worker: string;
  readonly endedAtMs: number;
}

export interface StoredJob {
  readonly job: Job;
  readonly revision: number;
}

export type Changed = ({ readonly kind: 'changed' | 'refused' } & StoredJob) | { readonly kind: 'missing' };

export interface Records {
  readJob(tenant: string, jobId: string): Promise<StoredJob | undefined>;
  changeJob(tenant: string, jobId: string, decide: (job: Job) => Change | undefined): Promise<Changed>;
  removeJob(tenant: string, jobId: string, revision: number): Promise<boolean>;
}

/** What running reads of the index. */
export interface Entries {
  get(key: string): JobEntry | undefined;
  /** One of a batch that has no record yet: not to be run. */
  isHeld(entry: JobEntry): boolean;
}

/** Where pictures go (blobs/blobs.ts). */
export interface Pictures {
  put(name: string, bytes: Uint8Array): Promise<void>;
  delete(name: string): Promise<void>;
}
