export { backlogClock } from './backlog.js';
export { ClassShares, PRIORITIES, type Priority, type Shares } from './class-shares.js';
export { CostModel, type CostModelOptions, type Work, workTflop } from './cost-model.js';
export { allowedExecutionMs, type ExecutionLimits, sizeRatio } from './execution-limit.js';
export { Heap } from './heap.js';
export { type Lease, LeaseTable } from './lease-table.js';
export { nextStart, type Start, type StartOptions } from './next-start.js';
export { paceOf } from './pace.js';
export { type Candidate, type Placement, place } from './placement.js';
export {
  type Bid,
  mayUse,
  NO_PREEMPTION,
  type Pausable,
  type Preemption,
  type PreemptionMode,
  type PreemptionPolicy,
  preemptionFor,
} from './preemption.js';
export { RetryBudget, type RetryBudgetOptions } from './retry-budget.js';
export { isMoreUrgent, type Urgency } from './urgency.js';
export { type Service, type Waiting, WaitQueue, type WaitQueueOptions } from './wait-queue.js';
