/**
 * The end of every call a gRPC server answered, as series and as one line. The only place where a
 * failed call is logged: inner code adds causes, not lines.
 */
import { Code, codeName, type Emit, Reason, type StatusError } from '#core';
import type { CallEnded } from '#grpc';
import type { Logger, LogLevel } from './logger.js';
import { DURATION_BUCKETS_SECONDS, type Metrics } from './metrics.js';

/** Asked all the time by machines, or open for as long as two processes know each other. */
const QUIET_METHODS = /^\/grpc\.|\/(Attach|Status|ListNodes|ListModels|WatchMesh)$/;
/** Ours to explain, whoever called. */
const OUR_FAULT: ReadonlySet<number> = new Set([Code.UNKNOWN, Code.INTERNAL, Code.DATA_LOSS, Code.UNIMPLEMENTED]);
/** Turned away at the door, perhaps by the thousand: counted, but strangers do not fill a disk with lines. */
const TURNED_AWAY: ReadonlySet<string> = new Set([Reason.UNAUTHENTICATED, Reason.RATE_LIMITED]);
/** A reason may come from another mesh; only known words become label values. */
const KNOWN_REASONS: ReadonlySet<string> = new Set([...Object.values(Reason), ...Object.keys(Code)]);

export function observeCalls(options: { metrics: Metrics; logger: Logger }): Emit<CallEnded> {
  const requests = options.metrics.counter({
    name: 'dmesh_grpc_requests_total',
    help: 'Calls answered, by method, status code and reason (OK when there is none).',
    labels: ['method', 'code', 'reason'],
  });
  const durations = options.metrics.histogram({
    name: 'dmesh_grpc_request_duration_seconds',
    help: 'From the first byte of a call to its status.',
    labels: ['method', 'code'],
    buckets: DURATION_BUCKETS_SECONDS,
  });
  return (event) => {
    const { method } = event;
    const code = codeName(event.code);
    requests.with({ method, code, reason: KNOWN_REASONS.has(event.reason) ? event.reason : 'OTHER' }).add();
    durations.with({ method, code }).observe(event.durationMs / 1000);
    options.logger[levelOf(event)](
      {
        method,
        code,
        reason: event.reason,
        duration_ms: Math.round(event.durationMs * 10) / 10,
        peer: event.peer,
        ...event.notes,
        ...(event.error ? errorField(event.error) : {}),
      },
      'call ended',
    );
  };
}

function levelOf(event: CallEnded): LogLevel {
  if (OUR_FAULT.has(event.code)) return 'error';
  return QUIET_METHODS.test(event.method) || TURNED_AWAY.has(event.reason) ? 'debug' : 'info';
}

/** The code and reason are fields of the line already; what is left is the sentence and, if any, the causes. */
function errorField(error: StatusError): { detail: string } | { error: StatusError } {
  return error.cause === undefined && error.code !== Code.INTERNAL ? { detail: error.message } : { error };
}
