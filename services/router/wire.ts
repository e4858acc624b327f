/**
 * The few bytes of an answer a router reads or adds. Pictures are never decoded: an answer is
 * forwarded as the bytes that came. Protobuf lets a later scalar field override an earlier one, so
 * the router's own figures are simply appended.
 *
 * Field numbers are those of GenerateResponse and GenerateEvent in generation.proto.
 */
import { generation } from '#contracts';
import { Pieces } from '#grpc';

const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;
const EXECUTING_MS_FIELD = 5;

/** GenerateResponse.executing_ms of a serialised answer; undefined when it is not there. */
export function readExecutingMs(response: Buffer): number | undefined {
  let at = 0;
  let found: number | undefined;
  while (at < response.length) {
    const tag = readVarint(response, at);
    at = tag.next;
    const field = tag.value >>> 3;
    switch (tag.value & 7) {
      case WIRE.varint:
        at = readVarint(response, at).next;
        break;
      case WIRE.fixed64:
        if (field === EXECUTING_MS_FIELD && at + 8 <= response.length) found = response.readDoubleLE(at);
        at += 8;
        break;
      case WIRE.bytes: {
        const length = readVarint(response, at);
        at = length.next + length.value;
        break;
      }
      case WIRE.fixed32:
        at += 4;
        break;
      default:
        return found; // not protobuf as we know it; its reader will say so
    }
  }
  return found;
}

/** The same answer with the router's own figures. */
export function appendRouterFigures(response: Buffer, figures: { queuedMs: number; attempts: number }): Pieces {
  return new Pieces([response, generation.GenerateResponse.encode(generation.GenerateResponse.fromPartial(figures)).finish()]);
}

export type EventKind = 'accepted' | 'queued' | 'started' | 'step' | 'image' | 'completed' | 'unknown';

const EVENT_KINDS: Readonly<Record<number, EventKind>> = {
  1: 'accepted',
  2: 'queued',
  3: 'started',
  4: 'step',
  5: 'image',
  6: 'completed',
};

/** Which arm of the oneof a serialised GenerateEvent holds: the first byte says it. */
export function eventKind(event: Buffer): EventKind {
  return EVENT_KINDS[(event[0] ?? 0) >>> 3] ?? 'unknown';
}

function readVarint(bytes: Buffer, start: number): { value: number; next: number } {
  let value = 0;
  let scale = 1;
  let at = start;
  for (; at < bytes.length; at++) {
    const byte = bytes[at] ?? 0;
    value += (byte & 0x7f) * scale;
    scale *= 128;
    if (byte < 0x80) return { value, next: at + 1 };
  }
  return { value, next: at };
}
