import { expect, test } from 'vitest';
import { Gates, type Passer } from './gates.js';

const job = (key: string, fields: Partial<Passer> = {}): Passer => ({ key, tenant: 'a', priority: 'low', model: 'm', ...fields });
const own = job('own');

function world() {
  const gates = new Gates(() => 0);
  return { gates, open: (passer: Passer, now: number) => gates.isOpen(passer, now) };
}

test.each([
  ['model', job('x'), job('y', { model: 'other' })],
  ['class', job('x'), job('y', { priority: 'high' })],
  ['tenant', job('x'), job('y', { tenant: 'b' })],
] as const)('a refusal that is about the %s bars those of the same', (scope, same, other) => {
  const { gates, open } = world();
  gates.refused(own, scope, { now: 1000 });
  expect([open(same, 1249), open(other, 1249)]).toEqual([false, true]);
  expect(gates.nextOpensAt(1000)).toBe(1250);
  expect(open(same, 1250)).toBe(true);
});

test('no router bars everybody', () => {
  const { gates, open } = world();
  gates.refused(own, 'all', { now: 0 });
  expect(open(job('y', { tenant: 'b', priority: 'high', model: 'other' }), 0)).toBe(false);
});

test('those that were turned away together count as one; the next in a row waits for longer', () => {
  const { gates, open } = world();
  for (const key of ['a', 'b', 'c']) gates.refused(job(key), 'model', { now: 0 });
  expect(gates.nextOpensAt(0)).toBe(250);
  gates.refused(own, 'model', { now: 250 });
  expect(gates.nextOpensAt(250)).toBe(750);
  gates.refused(own, 'model', { now: 750, leastMs: 5000 });
  expect([open(own, 5749), open(own, 5750)]).toEqual([false, true]);
});

test('after the pause one goes first; when it gets through all may', () => {
  const { gates, open } = world();
  gates.refused(own, 'model', { now: 0 });
  const scout = job('scout');
  gates.pass(scout);
  expect([open(scout, 250), open(own, 250)]).toEqual([true, false]);
  gates.ended(scout); // it was cancelled: another may find out
  expect(open(own, 250)).toBe(true);
  gates.pass(own);
  gates.begun(own);
  expect([open(scout, 250), gates.nextOpensAt(0)]).toEqual([true, undefined]);
});

test('when the world has changed everybody may try at once', () => {
  const { gates, open } = world();
  gates.refused(own, 'all', { now: 0, leastMs: 60_000 });
  gates.pass(job('scout'));
  gates.open();
  expect(open(own, 1)).toBe(true);
});

test('one that waits in a router’s queue bars only those of its model', () => {
  const { gates, open } = world();
  const scout = job('scout');
  for (const scope of ['all', 'class', 'tenant', 'model'] as const) gates.refused(scout, scope, { now: 0 });
  gates.pass(scout);
  expect(open(job('y', { model: 'other' }), 250)).toBe(false);
  gates.queued(scout);
  expect([open(job('y', { model: 'other' }), 250), open(own, 250)]).toEqual([true, false]);
});
