import { expect, test } from 'vitest';
import { Code, Reason } from '#core';
import { outcomeOf } from './outcome.js';

test.each([
  [Code.INVALID_ARGUMENT, Reason.BAD_REQUEST, 'neutral', 'never'],
  [Code.NOT_FOUND, Reason.UNKNOWN_MODEL, 'neutral', 'budget'],
  [Code.FAILED_PRECONDITION, 'FAILED_PRECONDITION', 'neutral', 'never'],
  [Code.CANCELLED, Reason.CANCELLED, 'neutral', 'never'],
  [Code.DEADLINE_EXCEEDED, Reason.DEADLINE, 'neutral', 'never'],
  [Code.DEADLINE_EXCEEDED, 'DEADLINE_EXCEEDED', 'neutral', 'never'],
  [Code.DEADLINE_EXCEEDED, Reason.EXECUTION_TIMEOUT, 'failure', 'budget'],
  [Code.UNAUTHENTICATED, Reason.UNAUTHENTICATED, 'neutral', 'never'],
  [Code.PERMISSION_DENIED, Reason.FORBIDDEN, 'neutral', 'never'],
  [Code.RESOURCE_EXHAUSTED, Reason.RATE_LIMITED, 'neutral', 'budget'],
  [Code.RESOURCE_EXHAUSTED, Reason.NODE_BUSY, 'neutral', 'free'],
  [Code.RESOURCE_EXHAUSTED, Reason.OUT_OF_MEMORY, 'failure', 'poison'],
  [Code.RESOURCE_EXHAUSTED, 'RESOURCE_EXHAUSTED', 'neutral', 'budget'],
  [Code.UNAVAILABLE, Reason.DRAINING, 'neutral', 'free'],
  [Code.UNAVAILABLE, Reason.ENGINE_NOT_READY, 'neutral', 'free'],
  [Code.UNAVAILABLE, Reason.ENGINE_CRASHED, 'failure', 'poison'],
  [Code.UNAVAILABLE, Reason.ENGINE_STALLED, 'failure', 'poison'],
  [Code.UNAVAILABLE, Reason.CONNECT_FAILED, 'failure', 'budget'],
  [Code.UNAVAILABLE, Reason.CONNECTION_LOST, 'failure', 'budget'],
  [Code.UNAVAILABLE, 'UNAVAILABLE', 'failure', 'budget'],
  [Code.INTERNAL, Reason.INTERNAL, 'failure', 'budget'],
  [Code.INTERNAL, Reason.NAN_OUTPUT, 'failure', 'poison'],
  [Code.INTERNAL, Reason.BLANK_OUTPUT, 'failure', 'poison'],
  [Code.DATA_LOSS, 'DATA_LOSS', 'failure', 'budget'],
  [Code.UNKNOWN, 'UNKNOWN', 'failure', 'budget'],
])('code %i, reason %s → %s, retried: %s', (code, reason, breaker, retry) => {
  expect(outcomeOf({ code, reason })).toEqual({ breaker, retry });
});

test('the reason decides before the code', () => {
  expect(outcomeOf({ code: Code.INVALID_ARGUMENT, reason: Reason.ENGINE_CRASHED })).toEqual({ breaker: 'failure', retry: 'poison' });
});

test('a reason such as "toString" is not found by accident, and an unknown code counts like UNKNOWN', () => {
  expect(outcomeOf({ code: Code.NOT_FOUND, reason: 'toString' })).toEqual({ breaker: 'neutral', retry: 'never' });
  expect(outcomeOf({ code: 99 as Code, reason: 'x' })).toEqual({ breaker: 'failure', retry: 'budget' });
});
