/**
 * Time and chance come in by argument, so that everything which waits or dices can be tested
 * without waiting or dicing. The real ones are made in libs/runtime.
 */

export interface Clock {
  /** Monotonic milliseconds from an arbitrary origin; survives jumps of the wall clock. */
  now(): number;
  /** Resolves after `ms`; rejects with the signal's reason as soon as it aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls back once after `ms`; the returned function takes it back. */
  schedule(ms: number, callback: () => void): () => void;
}

/** Uniform in [0, 1). */
export type Random = () => number;
