export { AdminHttp, type AdminHttpOptions, type Readiness } from './admin-http.js';
export { readTelemetryConfig, type TelemetryConfig } from './config.js';
export { describeError, type ErrorDescription } from './describe-error.js';
export { createEventLoopLag, type EventLoopLag, type EventLoopLagOptions } from './event-loop-lag.js';
export {
  createLogger,
  type LogFields,
  type LogFormat,
  type Logger,
  type LoggerOptions,
  type LogLevel,
} from './logger.js';
export {
  type Counter,
  createMetrics,
  DURATION_BUCKETS_SECONDS,
  type Gauge,
  type Histogram,
  type Labels,
  type Metrics,
} from './metrics.js';
export { observeBus } from './observe-bus.js';
export { observeCalls } from './observe-calls.js';
export { observeTls } from './observe-tls.js';
