/**
 * Calls a node and hands its answer on as the bytes that came: unary in one piece, streams event by
 * event. Only the few figures a router owns are read or added (wire.ts).
 */
import { generation } from '#contracts';
import { type Clock, Code, Reason, StatusError } from '#core';
import type { Pieces, Writer } from '#grpc';
import type { Ticket } from './dispatch/ticket.js';
import type { Attempt, Outcome, Run } from './execute.js';
import { appendRouterFigures, eventKind, readExecutingMs } from './wire.js';

const Service = generation.ImageGenerationServiceService;

/** For Generate: resolves with the serialised GenerateResponse. */
export function forwardUnary(ticket: Ticket): Run<Pieces> {
  return async ({ slot, metadata, deadlineAt, voice }) => {
    const options = { metadata, deadlineAt, signal: voice.signal };
    const { response } = await slot.node.link.channel.unaryRaw(Service.generate, ticket.request, options);
    voice.answers();
    const figures = { queuedMs: ticket.queuedMs, attempts: ticket.attempts };
    return { result: appendRouterFigures(response, figures), executingMs: readExecutingMs(response) };
  };
}

/**
 * For GenerateStream: writes `started`, then the node's steps, pictures and its end. The attempt's deadline
 * holds until the first piece of a picture: how long the caller takes to read is not the node's fault.
 */
export function forwardStream(ticket: Ticket, clock: Clock, out: Writer<generation.GenerateEvent>): Run<void> {
  return async (attempt) => {
    const drawing = new AbortController();
    const drawn = clock.schedule(attempt.deadlineAt - clock.now(), () => drawing.abort(deadlineError()));
    try {
      return await forwardEvents(ticket, out, { ...attempt, signal: AbortSignal.any([attempt.voice.signal, drawing.signal]) }, drawn);
    } finally {
      drawn();
    }
  };
}

async function forwardEvents(
  ticket: Ticket,
  out: Writer<generation.GenerateEvent>,
  { begun, slot, metadata, signal, voice }: Attempt & { readonly signal: AbortSignal },
  drawn: () => void,
): Promise<Outcome<void>> {
  let told = voice.joined;
  const tellStarted = async () => {
    if (told) return;
    told = true;
    begun();
    const value = { nodeId: slot.node.nodeId, attempt: ticket.attempts, loadMs: slot.loadMs };
    await out.write({ event: { $case: 'started', value } });
  };
  const { channel } = slot.node.link;
  const options = { metadata, deadlineAt: ticket.deadlineAt, signal };
  for await (const message of channel.serverStreamRaw(Service.generateStream, ticket.request, options)) {
    const kind = eventKind(message);
    // Not before the node says so: until then it may turn the request away, which counts as no attempt.
    if (kind !== 'accepted' && kind !== 'queued') await tellStarted();
    if (kind === 'image' || kind === 'completed') {
      drawn();
      voice.answers();
    }
    switch (kind) {
      case 'step':
        // Small and few: nobody who reads slowly holds up the node. One who is gone is noticed by the signal.
        if (voice.stepped()) out.write(message).catch(() => {});
        break;
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
      default:
        voice.heard(); // accepted, queued and started are the router's own to say
    }
  }
  throw new StatusError({
    code: Code.INTERNAL,
    reason: Reason.BAD_STREAM,
    message: `node ${slot.node.nodeId} ended its stream without completing`,
  });
}

function deadlineError(): StatusError {
  return new StatusError({ code: Code.DEADLINE_EXCEEDED, reason: Reason.DEADLINE, message: 'the attempt took too long' });
}
