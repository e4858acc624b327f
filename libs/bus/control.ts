/** Orders to one node, by a router or an operator: `nats req dmesh.v1.node.gpu0.control '{"action":"drain"}'`. */
import { StatusError } from '#core';
import type { Bus, BusMessage } from './bus.js';
import { controlSubject } from './subjects.js';

export const CONTROL_ACTIONS = ['drain', 'resume', 'reload'] as const;
export type ControlAction = (typeof CONTROL_ACTIONS)[number];

/** Accepted means begun, not finished: a drain may take as long as a request runs. */
export type ControlReply = { readonly ok: true } | { readonly error: string };

const TIMEOUT_MS = 2000;

export interface ServeControlOptions {
  readonly bus: Bus;
  readonly nodeId: string;
  /** Throws to refuse; a StatusError's message is told to the asker, anything else is not. */
  readonly handle: (action: ControlAction) => Promise<void> | void;
}

/** Returns what ends it. */
export function serveControl({ bus, nodeId, handle }: ServeControlOptions): () => void {
  const answer = async (message: BusMessage): Promise<ControlReply> => {
    const action = parseAction(message.data);
    if (!action) return { error: `expected {"action": one of ${CONTROL_ACTIONS.join(', ')}}` };
    try {
      await handle(action);
      return { ok: true };
    } catch (reason) {
      return { error: StatusError.from(reason).message };
    }
  };
  return bus.subscribe(controlSubject(nodeId), (message) => {
    void answer(message).then((reply) => message.respond(JSON.stringify(reply)));
  });
}

export interface SendControlOptions {
  readonly bus: Bus;
  readonly nodeId: string;
  readonly action: ControlAction;
  /** Default 2000. */
  readonly timeoutMs?: number;
}

/** Throws StatusError when no answer came: NOT_FOUND (no such node), UNAVAILABLE (NATS away), DEADLINE_EXCEEDED. */
export async function sendControl({ bus, nodeId, action, timeoutMs = TIMEOUT_MS }: SendControlOptions): Promise<ControlReply> {
  const bytes = await bus.request(controlSubject(nodeId), JSON.stringify({ action }), timeoutMs);
  const reply = fieldsOf(bytes);
  if (reply?.ok === true) return { ok: true };
  return { error: typeof reply?.error === 'string' ? reply.error : 'the node answered something that is no reply' };
}

function parseAction(bytes: Uint8Array): ControlAction | undefined {
  const action = fieldsOf(bytes)?.action;
  return CONTROL_ACTIONS.find((known) => known === action);
}

function fieldsOf(bytes: Uint8Array): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'));
    return typeof value === 'object' && value !== null ? { ...value } : undefined;
  } catch {
    return undefined; // not JSON: the caller answers for it
  }
}
