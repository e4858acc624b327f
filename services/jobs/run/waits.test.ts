import { beforeEach, expect, test, vi } from 'vitest';
import { Code } from '#core';
import { ManualClock } from '../../../test/support/manual-clock.js';
import type { Passer } from './gates.js';
import { Waits } from './waits.js';

const job = (key: string, fields: Partial<Passer> = {}): Passer => ({ key, tenant: 'a', priority: 'low', model: 'm', ...fields });
const wait = (reason: string, nextAttemptAtMs = 1000) => ({
  failure: { code: Code.UNAVAILABLE, reason, message: `because of ${reason}` },
  nextAttemptAtMs,
});
const own = job('own');

let clock: ManualClock;
let nowMs: number;
let waits: Waits;
beforeEach(() => {
  nowMs = 0;
  clock = new ManualClock();
  waits = new Waits({ clock, wallNow: () => nowMs, ownerOf: (key) => (key.startsWith('b') ? 'b' : 'a') });
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

test('a job that has changed waits no more for a reason of its own; shared ones hold', () => {
  waits.turnedAway(own, 'job', wait('NODE_BUSY'));
  waits.turnedAway(own, 'tenant', wait('RATE_LIMITED'));
  waits.changed(job('x'));
  expect(reasonOf(own)).toBe('NODE_BUSY');
  waits.changed(own);
  expect(reasonOf(own)).toBe('RATE_LIMITED');
});

test('who listens is told soon of what was told and of what is over, of many at once, and of nothing else', async () => {
  const listener = vi.fn();
  const forget = waits.onChange(listener);
  waits.begun(own);
  expect(clock.pendingCount).toBe(0);
  for (let number = 0; number < 100; number++) waits.turnedAway(job(`own${number}`), 'job', wait('NODE_BUSY'));
  await clock.advance(300);
  expect(listener).toHaveBeenCalledTimes(1);
  waits.turnedAway(own, 'model', wait('NO_NODES'));
  await clock.advance(300);
  waits.queued(own);
  expect(clock.pendingCount).toBe(0);
  waits.begun(own);
  await clock.advance(300);
  expect(listener).toHaveBeenCalledTimes(3);
  waits.turnedAway(own, 'model', wait('NO_NODES'));
  forget();
  await clock.advance(300);
  waits.begun(own);
  waits.stop();
  expect([listener.mock.calls.length, clock.pendingCount]).toEqual([3, 0]);
});
