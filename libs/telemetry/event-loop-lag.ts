/**
 * How far behind is this process? Whoever judges others by their silence must first know how long it
 * was deaf itself: a router that was stopped or busy for 4 s must not call every node suspect.
 *
 * A tick is due every `tickMs`; its delay is the lag. While a tick is overdue the lag grows as we are
 * asked, so the first timer that runs after a freeze sees it already. (A sampled histogram such as
 * perf_hooks' would learn of it only when its own timer has run; Prometheus gets that one from
 * the default nodejs_eventloop_lag_* series.)
 */
import type { Clock } from '#core';
import type { Metrics } from './metrics.js';

export interface EventLoopLag {
  readonly name: string;
  start(): Promise<void>;
  drain(): Promise<void>;
  close(): Promise<void>;
  /** The longest delay within the last window, in milliseconds; 0 before start. */
  lagMs(): number;
}

export interface EventLoopLagOptions {
  readonly clock: Clock;
  /** Default 100. Lags shorter than a tick may pass unseen. */
  readonly tickMs?: number;
  /** How long a freeze is remembered, at least. Default 10,000: as long as members are patient. */
  readonly windowMs?: number;
  /** Shows it as dmesh_event_loop_lag_seconds. */
  readonly metrics?: Metrics;
}

export function createEventLoopLag(options: EventLoopLagOptions): EventLoopLag {
  const { clock, tickMs = 100, windowMs = 10_000 } = options;
  let dueAt: number | undefined;
  let cancel = () => {};
  // Two half-open windows: the one being filled and the full one before it.
  let windowEndsAt = 0;
  let currentMaxMs = 0;
  let previousMaxMs = 0;

  const overdueMs = () => (dueAt === undefined ? 0 : Math.max(0, clock.now() - dueAt));
  const schedule = () => {
    dueAt = clock.now() + tickMs;
    cancel = clock.schedule(tickMs, tick);
  };
  const tick = () => {
    const lagMs = overdueMs();
    if (clock.now() >= windowEndsAt) {
      previousMaxMs = currentMaxMs;
      currentMaxMs = 0;
      windowEndsAt = clock.now() + windowMs;
    }
    currentMaxMs = Math.max(currentMaxMs, lagMs);
    schedule();
  };
  const stop = async () => {
    cancel();
    dueAt = undefined;
  };
  const lagMs = () => Math.max(previousMaxMs, currentMaxMs, overdueMs());
  options.metrics?.gauge({
    name: 'dmesh_event_loop_lag_seconds',
    help: 'The longest time this process did not react, within the last ten to twenty seconds.',
    collect: (gauge) => gauge.with().set(lagMs() / 1000),
  });
  return {
    name: 'event-loop-lag',
    async start() {
      windowEndsAt = clock.now() + windowMs;
      schedule();
    },
    drain: async () => {},
    close: stop,
    lagMs,
  };
}
