/**
 * What does an error say about the node, and may the request try another? One table, the reason
 * before the code, because one code covers cases with opposite answers: UNAVAILABLE is a node that
 * drains politely as well as an engine that this very request has crashed.
 */
import { type Code, codeName, Reason, type StatusError } from '#core';

/** How a call counts for the node it ran on. */
export type Settlement = 'success' | 'failure' | 'neutral';

/**
 * never: every node would say the same, or nobody waits any more. free: the node did not begin, so a
 * retry costs nothing. budget: a retry costs work, and is paid from the retry budget. poison: like
 * budget, but a request that does it to two nodes is stopped.
 */
export type Retry = 'never' | 'free' | 'budget' | 'poison';

export interface Outcome {
  readonly breaker: Exclude<Settlement, 'success'>;
  readonly retry: Retry;
}

const CALLERS_OWN: Outcome = { breaker: 'neutral', retry: 'never' };
const NOT_BEGUN: Outcome = { breaker: 'neutral', retry: 'free' };
const NOT_HERE: Outcome = { breaker: 'neutral', retry: 'budget' };
const NODE_FAULT: Outcome = { breaker: 'failure', retry: 'budget' };
const REQUEST_BREAKS_NODE: Outcome = { breaker: 'failure', retry: 'poison' };

const BY_REASON: Readonly<Record<Reason, Outcome>> = {
  [Reason.BAD_REQUEST]: CALLERS_OWN, // as wrong elsewhere
  [Reason.UNAUTHENTICATED]: CALLERS_OWN, // a mesh behind us does not know who asks
  [Reason.FORBIDDEN]: CALLERS_OWN,
  [Reason.UNKNOWN_NODE]: CALLERS_OWN,
  [Reason.ROUTE_UNSERVED]: CALLERS_OWN, // an operator's; no request for a picture ends with these three
  [Reason.CHANGED_MEANWHILE]: CALLERS_OWN,
  [Reason.STORE_UNAVAILABLE]: CALLERS_OWN,
  [Reason.STORE_FULL]: CALLERS_OWN, // of the jobs service; no node says these eleven
  [Reason.RESULT_MISSING]: CALLERS_OWN,
  [Reason.RESULT_DAMAGED]: CALLERS_OWN,
  [Reason.RECORD_DAMAGED]: CALLERS_OWN,
  [Reason.NO_JOBS_SERVICE]: CALLERS_OWN, // a router's, for jobs
  [Reason.WEBHOOK_REFUSED]: CALLERS_OWN,
  [Reason.UNKNOWN_JOB]: CALLERS_OWN,
  [Reason.JOB_DIFFERS]: CALLERS_OWN,
  [Reason.JOB_ENDED]: CALLERS_OWN,
  [Reason.JOB_ACTIVE]: CALLERS_OWN,
  [Reason.NO_RESULT]: CALLERS_OWN,
  [Reason.TOO_MANY_JOBS]: CALLERS_OWN,
  [Reason.TOO_MANY_BYTES]: CALLERS_OWN,
  [Reason.PROMPT_TOO_LONG]: CALLERS_OWN, // the limit is the model's
  [Reason.LORA_UNUSABLE]: CALLERS_OWN, // the same file on every node
  [Reason.MESSAGE_TOO_LARGE]: CALLERS_OWN, // as large elsewhere
  [Reason.CANCELLED]: CALLERS_OWN, // nobody waits
  [Reason.DEADLINE]: CALLERS_OWN, // the caller's deadline: says nothing about the node, and leaves no time
  [Reason.IDLE_READER]: CALLERS_OWN, // it asked and does not read
  [Reason.DEADLINE_UNREACHABLE]: CALLERS_OWN, // a mesh behind us has looked at all its nodes
  [Reason.QUEUE_TIMEOUT]: CALLERS_OWN, // the waiting was the caller's to limit
  [Reason.POISON]: CALLERS_OWN, // judged on two nodes already

  [Reason.NODE_BUSY]: NOT_BEGUN, // lost the race for a slot: back to the head of the queue
  [Reason.ENGINE_BUSY]: NOT_BEGUN,
  [Reason.DRAINING]: NOT_BEGUN, // leaves on purpose
  [Reason.ENGINE_NOT_READY]: NOT_BEGUN, // loading or restarting; its beat will say when it is back
  [Reason.UNKNOWN_MODEL]: NOT_HERE, // the router asks only for what beats list: this node knows another revision
  [Reason.UNKNOWN_LORA]: NOT_HERE,
  [Reason.MODEL_UNUSABLE]: NOT_HERE, // its own copy of the folder, or its own memory; it offers that model no more
  [Reason.QUEUE_FULL]: NOT_HERE, // a mesh behind us sheds load; not free, or shedding would add load
  [Reason.RATE_LIMITED]: NOT_HERE, // the same
  [Reason.NO_NODES]: NOT_HERE,

  [Reason.CONNECT_FAILED]: NODE_FAULT,
  [Reason.CONNECTION_LOST]: NODE_FAULT, // killed, frozen or cut off: the request may have run
  [Reason.EXECUTION_TIMEOUT]: NODE_FAULT, // the node's own limit, so the node is slow; the router minds the deadline
  [Reason.BAD_STREAM]: NODE_FAULT, // its answer broke the contract
  [Reason.INTERNAL]: NODE_FAULT,

  [Reason.OUT_OF_MEMORY]: REQUEST_BREAKS_NODE, // too big for the GPU, or the GPU is short: the second node tells
  [Reason.ENGINE_CRASHED]: REQUEST_BREAKS_NODE,
  [Reason.ENGINE_STALLED]: REQUEST_BREAKS_NODE,
  [Reason.NAN_OUTPUT]: REQUEST_BREAKS_NODE, // a failing GPU, or a prompt and LoRA that overflow
  [Reason.BLANK_OUTPUT]: REQUEST_BREAKS_NODE,
};

/** For reasons of others: a foreign server, or grpc-js itself. */
const BY_CODE: Readonly<Record<keyof typeof Code, Outcome>> = {
  OK: CALLERS_OWN, // not an error; nothing to learn
  CANCELLED: CALLERS_OWN,
  UNKNOWN: NODE_FAULT,
  INVALID_ARGUMENT: CALLERS_OWN,
  DEADLINE_EXCEEDED: CALLERS_OWN, // without our reason it is the caller's own deadline
  NOT_FOUND: CALLERS_OWN,
  ALREADY_EXISTS: CALLERS_OWN,
  PERMISSION_DENIED: CALLERS_OWN,
  RESOURCE_EXHAUSTED: NOT_HERE,
  FAILED_PRECONDITION: CALLERS_OWN,
  ABORTED: CALLERS_OWN,
  OUT_OF_RANGE: CALLERS_OWN,
  UNIMPLEMENTED: NODE_FAULT, // not one of ours, or another version: others can serve it
  INTERNAL: NODE_FAULT,
  UNAVAILABLE: NODE_FAULT,
  DATA_LOSS: NODE_FAULT,
  UNAUTHENTICATED: CALLERS_OWN,
};

/** Total: a code that gRPC does not define counts like UNKNOWN. */
export function outcomeOf(error: Pick<StatusError, 'code' | 'reason'>): Outcome {
  if (isKnown(BY_REASON, error.reason)) return BY_REASON[error.reason];
  const name = codeName(error.code);
  return isKnown(BY_CODE, name) ? BY_CODE[name] : NODE_FAULT;
}

function isKnown<Key extends string>(table: Readonly<Record<Key, Outcome>>, key: string): key is Key {
  return Object.hasOwn(table, key);
}
