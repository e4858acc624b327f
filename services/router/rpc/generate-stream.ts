import type { generation } from '#contracts';
import type { Clock } from '#core';
import type { ServerStreamHandler } from '#grpc';
import type { Admission } from '../admission.js';
import type { Dispatcher } from '../dispatch/dispatcher.js';
import type { Executor } from '../execute.js';
import { forwardStream } from '../forward.js';
import { report, traceOf } from './generate.js';

export function generateStream(parts: {
  admission: Admission;
  executor: Executor;
  dispatcher: Dispatcher;
  clock: Clock;
}): ServerStreamHandler<generation.GenerateRequest, generation.GenerateEvent> {
  return async (call, out) => {
    const ticket = await parts.admission.admit(call, (position, etaMs) => {
      // A caller who reads slowly misses a position, never an event that matters; a gone one is noticed by the signal.
      out.write({ event: { $case: 'queued', value: { position, etaMs } } }).catch(() => {});
    });
    const { seed = 0n } = ticket.request;
    const accepted = { requestId: ticket.requestId, seed, etaMs: parts.dispatcher.etaMs(ticket) };
    await out.write({ event: { $case: 'accepted', value: accepted } });
    try {
      await parts.executor.execute(ticket, call.signal, traceOf(call), forwardStream(ticket, parts.clock, out));
    } finally {
      report(call, ticket);
    }
  };
}
