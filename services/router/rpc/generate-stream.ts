import type { generation } from '#contracts';
import type { Clock } from '#core';
import type { Pieces, ServerStreamHandler } from '#grpc';
import type { Access } from '../access.js';
import type { Admission } from '../admission.js';
import type { Dispatcher } from '../dispatch/dispatcher.js';
import { EventLog } from '../event-log.js';
import type { Executor } from '../execute.js';
import { forwardStream } from '../forward.js';
import type { Flights } from '../join.js';
import { report, traceOf } from './generate.js';

export function generateStream(parts: {
  access: Access;
  admission: Admission;
  executor: Executor;
  dispatcher: Dispatcher;
  flights: Flights<EventLog>;
  clock: Clock;
}): ServerStreamHandler<generation.GenerateRequest, generation.GenerateEvent> {
  const { access, admission, clock, dispatcher, executor, flights } = parts;
  return (call, out) =>
    access.visited(call, async (visit) => {
      const log = new EventLog();
      const own = await admission.admit(
        call,
        visit,
        (position, etaMs) => void log.write({ event: { $case: 'queued', value: { position, etaMs } } }),
      );
      const flight = flights.board(own, () => {
        const run = (signal: AbortSignal) =>
          visit.during(async () => {
            try {
              await executor.execute(own, signal, traceOf(call), visit.measured(forwardStream(own, clock, log)));
            } finally {
              log.end();
            }
          });
        return { progress: log, run };
      });
      const ended = flight.wait(call.signal);
      ended.catch(() => {}); // read below
      try {
        const { seed = 0n } = flight.ticket.request;
        const accepted = { requestId: own.requestId, seed, etaMs: dispatcher.etaMs(own) };
        await out.write({ event: { $case: 'accepted', value: accepted } });
        for await (const event of flight.progress.read(call.signal)) await out.write(addressedTo(own.requestId, event));
        await ended;
      } finally {
        report(call, flight.ticket, flight.joined);
      }
    });
}

function addressedTo(requestId: string, event: generation.GenerateEvent | Pieces): generation.GenerateEvent | Pieces {
  if (!('event' in event) || event.event?.$case !== 'completed') return event;
  return { event: { $case: 'completed', value: { ...event.event.value, requestId } } };
}
