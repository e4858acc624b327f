import { expect, test } from 'vitest';
import { Code, Reason, StatusError, type StatusErrorOptions } from '#core';
import { MAX_ATTEMPTS, MAX_RECONNECT_ATTEMPTS, retryDelayMs } from './retry.js';

const error = (options: Partial<StatusErrorOptions>) =>
  new StatusError({ code: Code.UNAVAILABLE, reason: Reason.CONNECT_FAILED, message: 'test', ...options });
const early = () => 0;
const late = () => 0.999;

test.each([
  ['nobody was reached', { reason: Reason.CONNECT_FAILED }, [150, 300]],
  ['the router was stopping', { reason: Reason.DRAINING }, [150, 300]],
  ['no nodes, come back in 2 s', { reason: Reason.NO_NODES, retryDelayMs: 2000 }, [2000, 3000]],
  ['queue full, come back in 500 ms', { code: Code.RESOURCE_EXHAUSTED, reason: Reason.QUEUE_FULL, retryDelayMs: 500 }, [500, 750]],
  ['over the rate, come back in 200 ms', { code: Code.RESOURCE_EXHAUSTED, reason: Reason.RATE_LIMITED, retryDelayMs: 200 }, [200, 300]],
] as const)('%s: repeated after a wait', (_, options, [lowest, highest]) => {
  expect(retryDelayMs(error(options), { attempt: 1, random: early, known: false })).toBe(lowest);
  const longest = retryDelayMs(error(options), { attempt: 1, random: late, known: false }) ?? 0;
  expect(longest).toBeGreaterThan(lowest);
  expect(longest).toBeLessThan(highest);
});

test.each([
  ['a connection lost half-way may still be drawing', { reason: Reason.CONNECTION_LOST }],
  ['nobody said when to come back', { reason: Reason.NO_NODES }],
  ['a bad request stays bad', { code: Code.INVALID_ARGUMENT, reason: Reason.BAD_REQUEST }],
  ['the deadline passed', { code: Code.DEADLINE_EXCEEDED, reason: Reason.DEADLINE }],
  ['a poison request must not go round again', { code: Code.ABORTED, reason: Reason.POISON }],
  ['the caller cancelled', { code: Code.CANCELLED, reason: Reason.CANCELLED }],
  ['no token', { code: Code.UNAUTHENTICATED, reason: Reason.UNAUTHENTICATED }],
  ['not allowed', { code: Code.PERMISSION_DENIED, reason: Reason.FORBIDDEN }],
] as const)('%s: not repeated', (_, options) => {
  expect(retryDelayMs(error(options), { attempt: 1, random: early, known: false })).toBeUndefined();
});

test('waits double, and end with the last attempt', () => {
  expect([1, 2, MAX_ATTEMPTS].map((attempt) => retryDelayMs(error({}), { attempt, random: early, known: false }))).toEqual([
    150,
    300,
    undefined,
  ]);
});

test('a mesh that answered before is given about ten seconds to come back', () => {
  let totalMs = 0;
  for (let attempt = 1; attempt < MAX_RECONNECT_ATTEMPTS; attempt++)
    totalMs += retryDelayMs(error({}), { attempt, random: () => 0.5, known: true }) ?? 0;
  expect(totalMs).toBeGreaterThan(8000);
  expect(retryDelayMs(error({}), { attempt: MAX_RECONNECT_ATTEMPTS, random: early, known: true })).toBeUndefined();
  const queueFull = error({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.QUEUE_FULL, retryDelayMs: 500 });
  expect(retryDelayMs(queueFull, { attempt: MAX_ATTEMPTS, random: early, known: true })).toBeUndefined();
});

test.each([Reason.CONNECTION_LOST, Reason.STORE_UNAVAILABLE])('%s: repeated only what may be done twice', (reason) => {
  const away = error({ reason });
  expect(retryDelayMs(away, { attempt: 1, random: early, known: false, repeatable: true })).toBe(150);
  expect(retryDelayMs(away, { attempt: 1, random: early, known: false })).toBeUndefined();
  const attempts = (known: boolean) =>
    [1, 2, 3, 11, 12].map((attempt) => retryDelayMs(away, { attempt, random: early, known, repeatable: true }) !== undefined);
  expect([attempts(false), attempts(true)]).toEqual([
    [true, true, false, false, false],
    [true, true, true, true, false],
  ]);
  const refused = error({ code: Code.FAILED_PRECONDITION, reason: Reason.STORE_UNAVAILABLE }); // no JetStream: an operator's to mend
  expect(retryDelayMs(refused, { attempt: 1, random: early, known: false, repeatable: true })).toBeUndefined();
});
