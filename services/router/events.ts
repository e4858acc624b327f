/** What happens in a router, in one list. observe.ts alone turns these into lines and series. */
import type { StatusError } from '#core';

export type RouterEvent =
  /** A valid request was taken in. */
  | { readonly type: 'admitted'; readonly requestId: string; readonly model: string; readonly predictedMs: number }
  /** A request got a slot; `granted` when a node handed it out, else an idle one was called. */
  | {
      readonly type: 'dispatched';
      readonly requestId: string;
      readonly nodeId: string;
      readonly queuedMs: number;
      readonly granted: boolean;
    }
  /** An attempt ended well. Predicted and actual are engine time. */
  | {
      readonly type: 'executed';
      readonly requestId: string;
      readonly nodeId: string;
      readonly predictedMs: number;
      readonly actualMs: number;
    }
  /** An attempt failed; `again` when another node is asked. */
  | {
      readonly type: 'attemptFailed';
      readonly requestId: string;
      readonly nodeId: string;
      readonly attempt: number;
      readonly error: StatusError;
      readonly again: boolean;
    }
  /** The line to a node is up, or lost. */
  | { readonly type: 'nodeConnected'; readonly nodeId: string; readonly address: string }
  | { readonly type: 'nodeLost'; readonly nodeId: string; readonly reason: string }
  /** A node was added to or removed from what this router knows. */
  | { readonly type: 'nodeAdded'; readonly nodeId: string; readonly address: string; readonly incarnation: string }
  | { readonly type: 'nodeRemoved'; readonly nodeId: string; readonly reason: string }
  /** A half-open node drew its canary, or failed to. */
  | { readonly type: 'canaryEnded'; readonly nodeId: string; readonly ok: boolean; readonly reason: string };
