/** The numbers of a breaker, fit for calls that take seconds: opossum's own assume thousands a second. */
export interface BreakerSettings {
  /** Failures in a row that open it (nginx max_fails). */
  readonly consecutiveFailureCount: number;
  /** The last outcomes that are judged by share; nothing is judged before there are that many. */
  readonly windowCount: number;
  /** Opens at this share of failures in a full window, or more. */
  readonly windowFailureRatio: number;
  /** The first time out (nginx fail_timeout); doubles with every opening that follows too soon. */
  readonly openMs: number;
  readonly maxOpenMs: number;
  /** Spreads times out by this share to either side, so that routers do not probe in step. */
  readonly jitterRatio: number;
  /** Each such span spent closed takes one doubling back. */
  readonly decayMs: number;
  /** A probe that takes longer has failed. */
  readonly probeTimeoutMs: number;
  /** When a probe found the node busy, draining or loading, which is no verdict, the next one comes after this. */
  readonly probeRetryMs: number;
  /** The weight of a node that has just come back … */
  readonly rampStartRatio: number;
  /** … which grows to 1 over this many successes … */
  readonly rampSuccessCount: number;
  /** … and over this time without any: at a quarter of its share a mesh with room enough elsewhere asks it for nothing. */
  readonly rampMs: number;
}

export const DEFAULT_SETTINGS: BreakerSettings = {
  consecutiveFailureCount: 3,
  windowCount: 10,
  windowFailureRatio: 0.5,
  openMs: 30_000,
  maxOpenMs: 300_000,
  jitterRatio: 0.1,
  decayMs: 60_000,
  probeTimeoutMs: 30_000,
  probeRetryMs: 2_000,
  rampStartRatio: 0.25,
  rampSuccessCount: 8,
  rampMs: 10_000,
};
