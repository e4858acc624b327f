import { expect, test } from 'vitest';
import { Code, Reason } from '#core';
import { pauseMs, retryDelayMs, verdictOf } from './failures.js';

test.each([
  [Reason.BAD_REQUEST, Code.INVALID_ARGUMENT, { kind: 'final' }],
  [Reason.POISON, Code.INTERNAL, { kind: 'final' }],
  [Reason.ENGINE_CRASHED, Code.UNAVAILABLE, { kind: 'counted' }],
  [Reason.NO_NODES, Code.UNAVAILABLE, { kind: 'waits', scope: 'model' }],
  [Reason.QUEUE_FULL, Code.RESOURCE_EXHAUSTED, { kind: 'waits', scope: 'class' }],
  [Reason.RATE_LIMITED, Code.RESOURCE_EXHAUSTED, { kind: 'waits', scope: 'tenant' }],
  [Reason.CONNECTION_LOST, Code.UNAVAILABLE, { kind: 'waits', scope: 'all' }],
  ['SOMETHING_NEW', Code.INVALID_ARGUMENT, { kind: 'final' }],
  ['SOMETHING_NEW', Code.UNAVAILABLE, { kind: 'waits', scope: 'all' }],
  ['SOMETHING_NEW', Code.DATA_LOSS, { kind: 'counted' }],
  ['toString', Code.UNKNOWN, { kind: 'counted' }],
])('%s', (reason, code, verdict) => {
  expect(verdictOf({ reason, code })).toEqual(verdict);
});

test('three retries: after 10 s, 20 s and 40 s, up to a quarter later; then it has failed', () => {
  const settings = { retryCount: 3, retryDelayMs: 10_000 };
  expect([1, 2, 3, 4].map((failed) => retryDelayMs(failed, settings, () => 0))).toEqual([10_000, 20_000, 40_000, undefined]);
  expect(retryDelayMs(1, settings, () => 0.999)).toBeLessThanOrEqual(12_500);
  expect(retryDelayMs(1, { ...settings, retryCount: 0 }, () => 0)).toBeUndefined();
  expect(retryDelayMs(1000, { ...settings, retryCount: 1000 }, () => 0)).toBe(30 * 60_000);
});

test('pauses grow to half a minute', () => {
  expect([1, 2, 3, 8, 1000].map((times) => pauseMs(times, () => 0))).toEqual([250, 500, 1000, 30_000, 30_000]);
});
