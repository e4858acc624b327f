/**
 * Calls a node and hands its answer on as the bytes that came: unary in one piece, streams event by
 * event. Only the few figures a router owns are read or added (wire.ts).
 */
import { generation } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import type { Pieces, Writer } from '#grpc';
import type { Ticket } from './dispatch/ticket.js';
import type { Run } from './execute.js';
import { appendRouterFigures, eventKind, readExecutingMs } from './wire.js';

const Service = generation.ImageGenerationServiceService;

/** For Generate: resolves with the serialised GenerateResponse. */
export function forwardUnary(ticket: Ticket): Run<Pieces> {
  return async ({ slot, metadata, deadlineAt, signal }) => {
    const { response } = await slot.node.link.channel.unaryRaw(Service.generate, ticket.request, { metadata, deadlineAt, signal });
    const figures = { queuedMs: ticket.queuedMs, attempts: ticket.attempts };
    return { result: appendRouterFigures(response, figures), executingMs: readExecutingMs(response) };
  };
}

/** For GenerateStream: writes `started`, then the node's steps, pictures and its end. */
export function forwardStream(ticket: Ticket, out: Writer<generation.GenerateEvent>): Run<void> {
  return async ({ slot, metadata, deadlineAt, signal }) => {
    await out.write({ event: { $case: 'started', value: { nodeId: slot.node.nodeId, attempt: ticket.attempts } } });
    const { channel } = slot.node.link;
    for await (const message of channel.serverStreamRaw(Service.generateStream, ticket.request, { metadata, deadlineAt, signal })) {
      switch (eventKind(message)) {
        case 'step':
        case 'image':
          await out.write(message);
          break;
        case 'completed': {
          const { event } = generation.GenerateEvent.decode(message.toBuffer());
          if (event?.$case !== 'completed') break;
          const value = { ...event.value, queuedMs: ticket.queuedMs, attempts: ticket.attempts };
          await out.write({ event: { $case: 'completed', value } });
          return { result: undefined, executingMs: value.executingMs };
        }
        default: // accepted, queued and started are the router's own to say
      }
    }
    throw new StatusError({
      code: Code.INTERNAL,
      reason: Reason.INTERNAL,
      message: `node ${slot.node.nodeId} ended its stream without completing`,
    });
  };
}
