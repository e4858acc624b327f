import { beforeEach, expect, test, vi } from 'vitest';
import { Code } from '#core';
import type { Passer } from './gates.js';
import { Waits } from './waits.js';

const job = (key: string, fields: Partial<Passer> = {}): Passer => ({ key, tenant: 'a', priority: 'low', model: 'm', ...fields });
const wait = (reason: string, nextAttemptAtMs = 1000) => ({
  failure: { code: Code.UNAVAILABLE, reason, message: `because of ${reason}` },
  nextAttemptAtMs,
});
const own = job('own');

let nowMs: number;
let waits: Waits;
beforeEach(() => {
  nowMs = 0;
  waits = new Waits({ wallNow: () => nowMs, ownerOf: (key) => (key.startsWith('b') ? 'b' : 'a') });
});
const reasonOf = (passer: Passer) => waits.of(passer)?.failure.reason;

test.each([
  ['model', job('x'), job('y', { model: 'other' })],
  ['class', job('x'), job('y', { priority: 'high' })],
  ['tenant', job('x'), job('y', { tenant: 'c' })],
  ['all', job('x', { tenant: 'c', priority: 'high', model: 'other' }), job('b')],
  ['job', own, job('x')],
] as const)('what one was told about its %s holds for those of the same that its replica looks after', (scope, same, other) => {
  waits.turnedAway(own, scope, wait('NO_NODES'));
  expect([reasonOf(same), reasonOf(other)]).toEqual(['NO_NODES', undefined]);
  waits.begun(same);
  expect(reasonOf(own)).toBeUndefined();
});

test('one that waits in a router’s queue still may have no node; one of another replica says nothing', () => {
  for (const scope of ['all', 'class', 'tenant', 'job'] as const) waits.turnedAway(own, scope, wait('QUEUE_FULL'));
  waits.turnedAway(own, 'model', wait('NO_NODES'));
  waits.queued(job('b'));
  expect(reasonOf(own)).toBe('QUEUE_FULL');
  waits.queued(own);
  expect(reasonOf(own)).toBe('NO_NODES');
  waits.begun(job('b'));
  expect(reasonOf(own)).toBe('NO_NODES');
});

test('the newest is told; what nobody has said again for a minute is over', () => {
  waits.turnedAway(own, 'model', wait('UNKNOWN_MODEL'));
  waits.turnedAway(own, 'model', wait('NO_NODES', 30_000));
  nowMs = 90_000;
  expect(reasonOf(own)).toBe('NO_NODES');
  nowMs = 90_001;
  expect(reasonOf(own)).toBeUndefined();
});

test('who listens is told of what was told and of what is over, and of nothing else', () => {
  const listener = vi.fn();
  const forget = waits.onChange(listener);
  waits.begun(own);
  expect(listener).toHaveBeenCalledTimes(0);
  waits.turnedAway(own, 'model', wait('NO_NODES'));
  waits.queued(own);
  expect(listener).toHaveBeenCalledTimes(1);
  waits.begun(own);
  forget();
  waits.turnedAway(own, 'model', wait('NO_NODES'));
  expect(listener).toHaveBeenCalledTimes(2);
});
