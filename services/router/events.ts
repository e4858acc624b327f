/** What happens in a router, in one list. observe.ts alone turns these into lines and series. */
import type { Code, StatusError } from '#core';

export type RouterEvent =
  /** A valid request was taken in. */
  | { readonly type: 'admitted'; readonly requestId: string; readonly model: string; readonly predictedMs: number }
  /** A request that came through the door is over, whether answered, refused or failed. */
  | {
      readonly type: 'requestEnded';
      readonly tenant: string;
      /** Empty in an open mesh. */
      readonly tokenId: string;
      readonly requestId: string;
      /** Empty when it came to none. */
      readonly model: string;
      readonly nodeId: string;
      readonly code: Code;
      readonly reason: string;
      /** Engine time of the execution it began; 0 for one it joined. */
      readonly gpuMs: number;
      /** Pictures delivered. */
      readonly imageCount: number;
      readonly durationMs: number;
    }
  /** An operator's order was obeyed, or refused. */
  | {
      readonly type: 'leverPulled';
      /** As in the contract, such as "drain". */
      readonly lever: string;
      readonly tenant: string;
      readonly tokenId: string;
      readonly peer: string;
      /** What it was to be done to: a node, or the routes there should be. */
      readonly subject: Readonly<Record<string, string>>;
      readonly code: Code;
      readonly reason: string;
      readonly durationMs: number;
    }
  /** There is no token file: everybody who reaches this router may use it. */
  | { readonly type: 'accessOpen'; readonly listen: string }
  /** There is no token file: everybody with a certificate of this CA may use it. */
  | { readonly type: 'accessByCertificate'; readonly callerCa: string }
  /** Lines of the audit log could not be written. */
  | { readonly type: 'auditLost'; readonly lineCount: number; readonly error: unknown }
  /** A unary request was looked up among the answers kept. */
  | { readonly type: 'cacheAsked'; readonly hit: boolean }
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
  /** An urgent request's node fell silent, and an idle one draws the same picture. */
  | {
      readonly type: 'hedgeStarted';
      readonly requestId: string;
      readonly nodeId: string;
      readonly silentNodeId: string;
      readonly silentMs: number;
    }
  /** That second attempt is over: it was the sooner one, the first was, or it failed. */
  | {
      readonly type: 'hedgeEnded';
      readonly requestId: string;
      readonly nodeId: string;
      readonly result: 'won' | 'lost' | 'failed';
    }
  /** A replica of the jobs service failed a call before it was answered; another is asked. */
  | { readonly type: 'jobsReplicaFailed'; readonly replicaId: string; readonly method: string; readonly error: StatusError }
  /** The line to a node is up, or lost. */
  | { readonly type: 'nodeConnected'; readonly nodeId: string; readonly address: string }
  | { readonly type: 'nodeLost'; readonly nodeId: string; readonly reason: string }
  /** No line to a node comes about. Told once for each cause. */
  | { readonly type: 'nodeUnreached'; readonly nodeId: string; readonly address: string; readonly reason: string }
  /** A node was added to or removed from what this router knows. */
  | { readonly type: 'nodeAdded'; readonly nodeId: string; readonly address: string; readonly incarnation: string }
  | { readonly type: 'nodeRemoved'; readonly nodeId: string; readonly reason: string }
  /** A request for a route was given a target, such as "z-image-tiny@3". */
  | { readonly type: 'routed'; readonly route: string; readonly target: string }
  /** The mesh's routes are these now, each as "NAME -> targets". */
  | { readonly type: 'routesChanged'; readonly revision: number; readonly routes: readonly string[] }
  /** The store holds something that is no routes; the last good ones hold. */
  | { readonly type: 'routesRejected'; readonly revision: number; readonly fault: string }
  /** The store came back empty; the routes known hold here, but no new router knows them. */
  | { readonly type: 'routesLost'; readonly routeCount: number }
  /** There is no store to keep routes in. Told once for each cause. */
  | { readonly type: 'routesUnavailable'; readonly cause: string }
  /** It should be in quarantine, but too few others would be left, or no canary could tell in time. Once until it is faster. */
  | { readonly type: 'slowNodeKept'; readonly nodeId: string; readonly slowness: number }
  /** A half-open node drew its canary, or failed to. */
  | { readonly type: 'canaryEnded'; readonly nodeId: string; readonly ok: boolean; readonly reason: string };
