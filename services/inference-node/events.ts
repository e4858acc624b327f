/** What happens in a node, for observe.ts to turn into lines and series. Past tense, one line each. */
import type { StatusError } from '#core';
import type { Priority } from '#scheduling';

export type NodeEvent =
  /** An engine process runs; it is not ready yet. */
  | { readonly type: 'engineStarted'; readonly pid: number; readonly startCount: number }
  /** Loaded, and its canary drew what it should. */
  | { readonly type: 'engineReady'; readonly engine: string; readonly model: string; readonly tookMs: number }
  /** A model is in the engine's memory, and its canary drew what it should. */
  | { readonly type: 'modelLoaded'; readonly model: string; readonly revision: string; readonly tookMs: number }
  /** A model made room for another. */
  | { readonly type: 'modelUnloaded'; readonly model: string; readonly revision: string }
  /** A folder that this node does not offer, or does not offer any more. */
  | { readonly type: 'modelUnusable'; readonly dir: string; readonly why: string }
  /** An engine's life ended without being asked to; it is started again after the delay. */
  | { readonly type: 'engineLost'; readonly why: string; readonly failureCount: number; readonly delayMs: number }
  /** SIGKILL: it did not stop, or did not move. */
  | { readonly type: 'engineKilled'; readonly why: string }
  /** A request failed in a way that makes the engine doubtful; a canary follows. */
  | { readonly type: 'engineSuspected'; readonly why: string }
  /** It uses more memory than it may; a fresh one comes between two requests. */
  | { readonly type: 'engineOutgrown'; readonly usedBytes: number; readonly limitBytes: number }
  | { readonly type: 'engineStopped' }
  /** One line of the engine's own log. */
  | {
      readonly type: 'engineLogged';
      readonly level: 'debug' | 'info' | 'warn' | 'error';
      readonly message: string;
      readonly fields: Readonly<Record<string, unknown>>;
    }
  /** The canary drew `digest`; `passed` says whether that was expected. */
  | { readonly type: 'canaryDrawn'; readonly passed: boolean; readonly digest: string; readonly expected: string; readonly tookMs: number }
  /** The engine has one more step done. */
  | { readonly type: 'stepDone'; readonly stepMs: number }
  /** A request left the engine, in whatever way. */
  | {
      readonly type: 'drawEnded';
      readonly requestId: string;
      readonly leaseId: bigint;
      readonly predictedMs: number | undefined;
      readonly tookMs: number;
      readonly error?: StatusError;
    }
  /** A request gave the engine to a more urgent or much shorter one. */
  | { readonly type: 'drawPaused'; readonly requestId: string; readonly priority: Priority }
  /** It went on, or was given up. */
  | { readonly type: 'pauseEnded'; readonly requestId: string; readonly priority: Priority; readonly pausedMs: number }
  /** A cancelled or expired request has really left the engine. */
  | { readonly type: 'drawStopped'; readonly requestId: string; readonly tookMs: number; readonly killed: boolean }
  /** Pictures became files. */
  | { readonly type: 'imageEncoded'; readonly mimeType: string; readonly bytes: number; readonly tookMs: number }
  | { readonly type: 'routerAttached'; readonly routerId: string; readonly peer: string }
  | { readonly type: 'routerLeft'; readonly routerId: string }
  | { readonly type: 'slotGranted'; readonly routerId: string; readonly leaseId: bigint }
  /** It was neither used nor declined in time; that router's bids do not count for `pauseMs`. */
  | { readonly type: 'grantLapsed'; readonly routerId: string; readonly leaseId: bigint; readonly pauseMs: number }
  /** Draining began or, by an operator's resume, ended. */
  | { readonly type: 'drainChanged'; readonly draining: boolean; readonly by: string }
  /** A command came over NATS. */
  | { readonly type: 'controlReceived'; readonly action: string };
