/** What running asks of the rest of the service: the records, what the index knows of each job, and the pictures. */
import type { Priority } from '#scheduling';
import type { Change, Job } from '../domain/job.js';

/** A job in short, as every replica keeps it in memory. */
export interface JobEntry {
  /** Of its record. */
  readonly key: string;
  readonly tenant: string;
  readonly jobId: string;
  readonly priority: Priority;
  /** As asked for: perhaps a route. */
  readonly model: string;
  readonly submittedAtMs: number;
  readonly expiresAtMs: number;
  readonly attempt: number;
  readonly state:
    | { readonly kind: 'queued'; readonly notBeforeMs: number }
    | { readonly kind: 'running'; readonly worker: string }
    | { readonly kind: 'succeeded' | 'failed' | 'cancelled' | 'expired'; readonly endedAtMs: number };
  /** One of a batch that has no record yet: not to be run. */
  readonly held: boolean;
}

export interface Kept {
  readonly job: Job;
  readonly revision: number;
}

/** What became of a change: made, not possible to this job as it is now (which is told), or there is no such job. */
export type Changed = ({ readonly kind: 'changed' | 'refused' } & Kept) | { readonly kind: 'gone' };

/** All throw a StatusError, UNAVAILABLE while NATS is away; the change may have happened all the same. */
export interface Records {
  read(key: string): Promise<Kept | undefined>;
  /** By compare and set, for as often as somebody else was faster. `decide`: undefined when it has nothing to say to this job. */
  change(key: string, decide: (job: Job) => Change | undefined): Promise<Changed>;
  /** Resolves when there is no such record any more; `decide` is asked whether that is right for the job as it is. */
  remove(key: string, decide: (job: Job) => boolean): Promise<Job | undefined>;
}

/** Where pictures go (blobs/blobs.ts). */
export interface Pictures {
  put(name: string, bytes: Uint8Array): Promise<void>;
  delete(name: string): Promise<void>;
}
