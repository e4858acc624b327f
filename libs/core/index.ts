export type { Clock, Random } from './clock.js';
export type { Emit } from './events.js';
export { printable } from './printable.js';
export {
  badRequest,
  Code,
  cancelled,
  codeName,
  type ErrorDetails,
  Reason,
  StatusError,
  type StatusErrorOptions,
  type Violation,
} from './status.js';
