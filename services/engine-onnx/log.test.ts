import { expect, test } from 'vitest';
import { Code, Reason, StatusError } from '#core';
import type { EngineEvent } from './events.js';
import { jsonLog, logEvent } from './log.js';

function logged(event: EngineEvent, minLevel: 'debug' | 'info' = 'debug') {
  const lines: string[] = [];
  logEvent(jsonLog({ minLevel, write: (line) => lines.push(line), epochMs: () => 1 }), event);
  return lines.map((line) => JSON.parse(line));
}

const ended = { type: 'callEnded', method: '/m', durationMs: 2, peer: 'p', notes: {} } as const;

test('a failed call is one line with the code, the text and the cause that the peer does not see', () => {
  const error = new StatusError({ code: Code.INTERNAL, reason: Reason.NAN_OUTPUT, message: 'text', cause: new Error('inside') });
  expect(logged({ ...ended, code: Code.INTERNAL, reason: Reason.NAN_OUTPUT, error })).toEqual([
    expect.objectContaining({
      level: 'warn',
      time: 1,
      msg: 'call ended',
      code: 'INTERNAL',
      reason: 'NAN_OUTPUT',
      error: 'text',
      cause: 'inside',
    }),
  ]);
});

test('what only concerns the caller is debug, and left out above it', () => {
  const event = { ...ended, code: Code.CANCELLED, reason: Reason.CANCELLED };
  expect(logged(event)).toHaveLength(1);
  expect(logged(event, 'info')).toHaveLength(0);
});
