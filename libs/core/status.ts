/**
 * One class crosses every boundary: StatusError. It says which standard code a peer sees, which
 * machine-readable reason stands behind it, and, in details, what a program needs to decide.
 *
 * Codes are gRPC's (grpc.io/docs/guides/status-codes); details mirror google.rpc.error_details and
 * are put on the wire by libs/grpc alone.
 */

export const Code = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;
export type Code = (typeof Code)[keyof typeof Code];

const CODE_NAMES = new Map<number, string>(Object.entries(Code).map(([name, code]) => [code, name]));

/** "UNAVAILABLE" for 14; "CODE_99" for what gRPC does not define. */
export function codeName(code: number): string {
  return CODE_NAMES.get(code) ?? `CODE_${code}`;
}

/** Why, for a program. Every reason is listed with its cure in docs/operations.md. */
export const Reason = {
  UNAUTHENTICATED: 'UNAUTHENTICATED',
  FORBIDDEN: 'FORBIDDEN',
  RATE_LIMITED: 'RATE_LIMITED',
  BAD_REQUEST: 'BAD_REQUEST',
  UNKNOWN_MODEL: 'UNKNOWN_MODEL',
  UNKNOWN_LORA: 'UNKNOWN_LORA',
  UNKNOWN_NODE: 'UNKNOWN_NODE',
  ROUTE_UNSERVED: 'ROUTE_UNSERVED',
  CHANGED_MEANWHILE: 'CHANGED_MEANWHILE',
  STORE_UNAVAILABLE: 'STORE_UNAVAILABLE',
  STORE_FULL: 'STORE_FULL',
  RESULT_MISSING: 'RESULT_MISSING',
  RESULT_DAMAGED: 'RESULT_DAMAGED',
  RECORD_DAMAGED: 'RECORD_DAMAGED',
  WEBHOOK_REFUSED: 'WEBHOOK_REFUSED',
  UNKNOWN_JOB: 'UNKNOWN_JOB',
  JOB_DIFFERS: 'JOB_DIFFERS',
  JOB_ENDED: 'JOB_ENDED',
  JOB_ACTIVE: 'JOB_ACTIVE',
  NO_RESULT: 'NO_RESULT',
  TOO_MANY_JOBS: 'TOO_MANY_JOBS',
  TOO_MANY_BYTES: 'TOO_MANY_BYTES',
  PROMPT_TOO_LONG: 'PROMPT_TOO_LONG',
  LORA_UNUSABLE: 'LORA_UNUSABLE',
  MODEL_UNUSABLE: 'MODEL_UNUSABLE',
  QUEUE_FULL: 'QUEUE_FULL',
  DEADLINE_UNREACHABLE: 'DEADLINE_UNREACHABLE',
  QUEUE_TIMEOUT: 'QUEUE_TIMEOUT',
  EXECUTION_TIMEOUT: 'EXECUTION_TIMEOUT',
  DEADLINE: 'DEADLINE',
  IDLE_READER: 'IDLE_READER',
  NO_NODES: 'NO_NODES',
  NO_JOBS_SERVICE: 'NO_JOBS_SERVICE',
  NODE_BUSY: 'NODE_BUSY',
  DRAINING: 'DRAINING',
  ENGINE_BUSY: 'ENGINE_BUSY',
  ENGINE_NOT_READY: 'ENGINE_NOT_READY',
  ENGINE_CRASHED: 'ENGINE_CRASHED',
  ENGINE_STALLED: 'ENGINE_STALLED',
  OUT_OF_MEMORY: 'OUT_OF_MEMORY',
  NAN_OUTPUT: 'NAN_OUTPUT',
  BLANK_OUTPUT: 'BLANK_OUTPUT',
  POISON: 'POISON',
  CONNECT_FAILED: 'CONNECT_FAILED',
  CONNECTION_LOST: 'CONNECTION_LOST',
  MESSAGE_TOO_LARGE: 'MESSAGE_TOO_LARGE',
  BAD_STREAM: 'BAD_STREAM',
  CANCELLED: 'CANCELLED',
  INTERNAL: 'INTERNAL',
} as const;
export type Reason = (typeof Reason)[keyof typeof Reason];

export interface Violation {
  /** Field path as in the proto, such as "width" or "loras[0].strength". */
  readonly field: string;
  /** What was expected and what came. */
  readonly description: string;
}

export interface ErrorDetails {
  /** google.rpc.BadRequest */
  readonly violations?: readonly Violation[];
  /** google.rpc.ResourceInfo */
  readonly resource?: { readonly type: string; readonly name: string; readonly description: string };
  /** google.rpc.QuotaFailure: whose limit was exceeded, and what it is. */
  readonly quota?: { readonly subject: string; readonly description: string };
  /** google.rpc.RetryInfo */
  readonly retryDelayMs?: number;
  /** google.rpc.ErrorInfo metadata: figures behind the reason, as text. */
  readonly metadata?: Readonly<Record<string, string>>;
}

export interface StatusErrorOptions extends ErrorDetails {
  readonly code: Code;
  /** One of Reason in this mesh; any text when it came from elsewhere. */
  readonly reason: string;
  /** One sentence: what was expected, what came. The peer reads it. */
  readonly message: string;
  /** Goes to our log, never to the peer. */
  readonly cause?: unknown;
}

export class StatusError extends Error {
  override readonly name = 'StatusError';
  readonly code: Code;
  readonly reason: string;
  readonly details: ErrorDetails;

  constructor(options: StatusErrorOptions) {
    super(options.message, options.cause === undefined ? undefined : { cause: options.cause });
    const { code, reason, message: _message, cause: _cause, ...details } = options;
    this.code = code;
    this.reason = reason;
    this.details = details;
  }

  /** Total: whatever was thrown becomes a StatusError; what is not one becomes INTERNAL and hides its text. */
  static from(thrown: unknown): StatusError {
    if (thrown instanceof StatusError) return thrown;
    if (thrown instanceof DOMException && thrown.name === 'AbortError') return cancelled(thrown);
    return new StatusError({ code: Code.INTERNAL, reason: Reason.INTERNAL, message: 'internal error', cause: thrown });
  }
}

export function cancelled(cause?: unknown): StatusError {
  return new StatusError({ code: Code.CANCELLED, reason: Reason.CANCELLED, message: 'the caller cancelled', cause });
}

/** All violations at once, in the order of the fields. */
export function badRequest(violations: readonly Violation[]): StatusError {
  const text = violations.map((v) => `${v.field}: ${v.description}`).join('; ');
  return new StatusError({ code: Code.INVALID_ARGUMENT, reason: Reason.BAD_REQUEST, message: text, violations });
}
