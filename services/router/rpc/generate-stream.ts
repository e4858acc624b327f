import type { generation } from '#contracts';
import type { Clock } from '#core';
import type { Pieces, ServerStreamHandler } from '#grpc';
import type { Access } from '../access.js';
import type { Admission } from '../admission.js';
import type { Ticket } from '../dispatch/ticket.js';
import { EventLog } from '../event-log.js';
import type { Executor } from '../execute.js';
import { forwardStream } from '../forward.js';
import { diedForItsFirst, type Flight, type Flights } from '../join.js';
import { report, traceOf } from './generate.js';

export function generateStream(parts: {
  access: Access;
  admission: Admission;
  executor: Executor;
  flights: Flights<EventLog>;
  clock: Clock;
  /** Time until it would be finished, milliseconds. */
  etaMs: (ticket: Ticket) => number;
}): ServerStreamHandler<generation.GenerateRequest, generation.GenerateEvent> {
  const { access, admission, clock, executor, flights } = parts;
  return (call, out) =>
    access.visited(call, async (visit) => {
      const log = new EventLog();
      let own = await admission.admit(
        call,
        visit,
        (position, etaMs) => void log.write({ event: { $case: 'queued', value: { position, etaMs } } }),
      );
      const start = () => {
        const run = (signal: AbortSignal) =>
          visit.during(async () => {
            try {
              await executor.execute(own, signal, traceOf(call), visit.measured(forwardStream(own, clock, log)));
            } finally {
              log.end();
            }
          });
        return { progress: log, run };
      };
      const ride = async (flight: Flight<EventLog>, isFirst: boolean) => {
        const ended = flight.wait(call.signal);
        ended.catch(() => {}); // read below
        const { seed = 0n } = flight.ticket.request;
        const accepted = { requestId: own.requestId, seed, etaMs: parts.etaMs(own) };
        if (isFirst) await out.write({ event: { $case: 'accepted', value: accepted } });
        for await (const event of flight.progress.read(call.signal)) await out.write(addressedTo(own.requestId, event));
        await ended;
      };
      for (let isFirst = true; ; isFirst = false) {
        const flight = flights.board(own, start);
        try {
          return await ride(flight, isFirst);
        } catch (error) {
          if (call.signal.aborted || !diedForItsFirst(flight, own, error)) throw error;
          own = { ...own, request: { ...own.request, seed: flight.ticket.request.seed } }; // as was accepted
        } finally {
          report(call, flight.ticket, flight.joined);
        }
      }
    });
}

function addressedTo(requestId: string, event: generation.GenerateEvent | Pieces): generation.GenerateEvent | Pieces {
  if (!('event' in event) || event.event?.$case !== 'completed') return event;
  return { event: { $case: 'completed', value: { ...event.event.value, requestId } } };
}
