export { Breaker, type BreakerEvent, type BreakerOptions, type OpenCause, type Permit } from './breaker.js';
export type { BreakerState } from './gate.js';
export { type Outcome, outcomeOf, type Retry, type Settlement } from './outcome.js';
export { BreakerPool, type BreakerPoolOptions } from './pool.js';
export { type BreakerSettings, DEFAULT_SETTINGS } from './settings.js';
