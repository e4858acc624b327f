import { generation } from '#contracts';
import type { Call, Pieces, UnaryHandler } from '#grpc';
import type { Access } from '../access.js';
import type { Admission } from '../admission.js';
import type { Ticket } from '../dispatch/ticket.js';
import type { Executor } from '../execute.js';
import { forwardUnary } from '../forward.js';
import { contentKey, diedForItsFirst, type Flights } from '../join.js';
import type { ResultCache } from '../result-cache.js';

/** The answer of a unary execution, once it is there. */
export interface UnaryResult {
  response?: Pieces;
}

export function generate(parts: {
  access: Access;
  admission: Admission;
  executor: Executor;
  flights: Flights<UnaryResult>;
  cache: ResultCache;
}): UnaryHandler<generation.GenerateRequest, generation.GenerateResponse> {
  const { access, admission, cache, executor, flights } = parts;
  return (call) =>
    access.visited(call, async (visit) => {
      const own = await admission.admit(call, visit);
      const key = cache.enabled ? contentKey(own) : undefined;
      const kept = key === undefined ? undefined : cache.get(key);
      if (kept) {
        call.trailers['x-mesh-cache'] = call.notes.cache = 'hit';
        return addressedTo(own.requestId, kept);
      }
      const start = () => {
        const progress: UnaryResult = {};
        const run = (signal: AbortSignal) =>
          visit.during(async () => {
            progress.response = await executor.execute(own, signal, traceOf(call), visit.measured(forwardUnary(own)));
            if (key !== undefined) cache.put(key, progress.response);
          });
        return { progress, run };
      };
      for (;;) {
        const flight = flights.board(own, start);
        try {
          await flight.wait(call.signal);
          const { response } = flight.progress;
          if (!response) throw new Error('an execution that ended well has an answer');
          return flight.joined ? addressedTo(own.requestId, response) : response;
        } catch (error) {
          if (call.signal.aborted || !diedForItsFirst(flight, own, error)) throw error;
        } finally {
          report(call, flight.ticket, flight.joined);
        }
      }
    });
}

/** The same pictures under the caller's own request id: of a field that comes twice, the later one counts. */
function addressedTo(requestId: string, response: Pieces): Pieces {
  return response.followedBy(generation.GenerateResponse.encode(generation.GenerateResponse.fromPartial({ requestId })).finish());
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
export function report(call: Call<unknown>, ticket: Ticket, joined: boolean): void {
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
  if (!joined) return;
  call.trailers['x-mesh-joined'] = ticket.requestId;
  call.notes.joined = ticket.requestId;
}
