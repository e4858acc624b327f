import type { generation } from '#contracts';
import type { Call, UnaryHandler } from '#grpc';
import type { Admission } from '../admission.js';
import type { Ticket } from '../dispatch/ticket.js';
import type { Executor } from '../execute.js';
import { forwardUnary } from '../forward.js';

export function generate(parts: {
  admission: Admission;
  executor: Executor;
}): UnaryHandler<generation.GenerateRequest, generation.GenerateResponse> {
  return async (call) => {
    const ticket = await parts.admission.admit(call);
    try {
      return await parts.executor.execute(ticket, call.signal, traceOf(call), forwardUnary(ticket));
    } finally {
      report(call, ticket);
    }
  };
}

/** Trace context passes through untouched (W3C Trace Context). */
export function traceOf(call: Call<unknown>): Record<string, string> {
  const trace: Record<string, string> = {};
  for (const key of ['traceparent', 'tracestate']) {
    const value = call.metadata[key];
    if (value !== undefined) trace[key] = value;
  }
  return trace;
}

/** Trailers for the caller and fields for our own line, on success and on failure. */
export function report(call: Call<unknown>, ticket: Ticket): void {
  const lastLife = [...ticket.tried].at(-1);
  const nodeId = ticket.servedBy ?? lastLife?.split('/')[0];
  if (nodeId !== undefined) {
    call.trailers['x-mesh-node'] = nodeId;
    call.notes.node_id = nodeId;
  }
  call.trailers['x-mesh-queue-ms'] = String(Math.round(ticket.queuedMs));
  call.trailers['x-mesh-attempts'] = String(ticket.attempts);
  call.notes.queue_ms = Math.round(ticket.queuedMs);
  call.notes.attempts = ticket.attempts;
}
