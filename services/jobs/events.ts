/** What happens in the jobs service, in one list. observe.ts alone turns these into lines and series. */
import type { SweepFigures } from './blobs/sweep.js';
import type { Scope } from './domain/failures.js';
import type { Failure, StateKind } from './domain/job.js';

interface OfJob {
  readonly tenant: string;
  readonly jobId: string;
}

export type JobsEvent =
  /** The record of a job of this replica has changed. `before`: undefined when it is new. */
  | (OfJob & {
      readonly type: 'jobChanged';
      readonly before: StateKind | undefined;
      readonly state: StateKind;
      readonly attempt: number;
      readonly nodeId: string;
      /** In the state that it has left, for one that waited since it was submitted; undefined: not known. */
      readonly tookMs: number | undefined;
    })
  /** It waits at a router; `position` is among all that wait there. */
  | (OfJob & { readonly type: 'jobWaits'; readonly position: number; readonly etaMs: number })
  /** A router, or what is before it, would not take it; `scope`: whose jobs wait with it until then. */
  | (OfJob & {
      readonly type: 'jobTurnedAway';
      readonly scope: Scope;
      readonly failure: Failure;
      readonly nextAttemptAtMs: number;
    })
  | (OfJob & {
      readonly type: 'jobStepped';
      readonly attempt: number;
      readonly nodeId: string;
      readonly step: number;
      readonly totalSteps: number;
    })
  /**
   * An attempt is over. `again`: its job is tried again; `waits`: it was turned away and waits as before; `lost`: its
   * picture came too late.
   */
  | (OfJob & {
      readonly type: 'attemptEnded';
      readonly requestId: string;
      readonly outcome: 'succeeded' | 'failed' | 'again' | 'waits' | 'lost';
      readonly reason: string;
      readonly detail: string;
    })
  /** A fault in our own code: what became of an attempt could not be recorded. */
  | (OfJob & { readonly type: 'attemptLost'; readonly error: unknown })
  /** A picture waits for the store, or its record for NATS; `again`: as it did before. */
  | (OfJob & { readonly type: 'recordingDelayed'; readonly again: boolean; readonly error: unknown })
  /** Its worker has died; it waits anew. */
  | (OfJob & { readonly type: 'jobTakenBack'; readonly worker: string })
  | (OfJob & { readonly type: 'jobForgotten'; readonly why: 'retention' | 'uncommitted' })
  /** Expiry or removal did not work out; tried again. */
  | (OfJob & { readonly type: 'chorePostponed'; readonly error: unknown })
  /** The bucket of records is followed, or is not, and why. */
  | { readonly type: 'recordsState'; readonly state: 'waiting' | 'following' | 'unavailable'; readonly cause: string }
  /** Something in the bucket is no record of ours; it is passed over. */
  | { readonly type: 'recordUnreadable'; readonly key: string; readonly error: unknown }
  /** Another process with our id started later: we own nothing until it is gone. */
  | { readonly type: 'displaced'; readonly replicaId: string; readonly incarnation: string }
  /** One look through the store is over. */
  | ({ readonly type: 'storeSwept' } & SweepFigures)
  /** There is no token file: everybody may submit, or with a CA of callers everybody with a certificate of it. */
  | { readonly type: 'accessOpen'; readonly listen: string; readonly callerCa: string | undefined }
  | { readonly type: 'sweepFailed'; readonly error: unknown };
