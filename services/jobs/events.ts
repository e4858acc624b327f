/** What happens in the jobs service, in one list. observe.ts alone turns these into lines and series. */

interface OfJob {
  readonly tenant: string;
  readonly jobId: string;
}

export type JobsEvent =
  /** It waits at a router; `position` is among all that wait there. */
  | (OfJob & { readonly type: 'jobWaits'; readonly position: number; readonly etaMs: number })
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
      readonly attempt: number;
      readonly outcome: 'succeeded' | 'failed' | 'again' | 'waits' | 'lost';
      readonly reason: string;
      readonly detail?: string;
    })
  /** A fault in our own code: what became of an attempt could not be recorded. */
  | (OfJob & { readonly type: 'attemptLost'; readonly error: unknown })
  /** A picture or its record waits for the store, or for NATS. */
  | (OfJob & { readonly type: 'recordingDelayed'; readonly error: unknown })
  /** Its worker has died; it waits anew. */
  | (OfJob & { readonly type: 'jobTakenBack'; readonly worker: string })
  | (OfJob & { readonly type: 'jobForgotten'; readonly why: 'retention' | 'uncommitted' })
  /** Expiry or removal did not work out; tried again. */
  | (OfJob & { readonly type: 'chorePostponed'; readonly error: unknown });
