import { expect, test } from 'vitest';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { Agenda } from './agenda.js';

function world() {
  const clock = new ManualClock();
  const due: string[] = [];
  const wall = { aheadMs: 1_000_000 };
  const agenda = new Agenda({ clock, wallNow: () => wall.aheadMs + clock.now(), onDue: (key) => due.push(key) });
  const at = (ms: number) => 1_000_000 + ms;
  return { agenda, at, clock, due, wall };
}

test('each thing in its time, with one timer', async () => {
  const { agenda, at, clock, due } = world();
  agenda.set('b', at(200));
  agenda.set('a', at(100));
  agenda.set('never', at(150));
  agenda.set('moved', at(50));
  agenda.set('never', undefined);
  agenda.set('moved', at(300));
  expect(clock.pendingCount).toBe(1);
  await clock.advance(99);
  expect(due).toEqual([]);
  await clock.advance(1);
  expect(due).toEqual(['a']);
  await clock.advance(200);
  expect(due).toEqual(['a', 'b', 'moved']);
  expect([agenda.size, clock.pendingCount]).toEqual([0, 0]);
});

test('what is due already, be it a crowd, comes in turn', async () => {
  const { agenda, at, clock, due } = world();
  for (let index = 0; index < 1000; index++) agenda.set(`j${index}`, at(-1));
  await clock.advance(0);
  expect(due).toHaveLength(1000);
});

test('a wall clock that was set forward is noticed within a minute', async () => {
  const { agenda, at, clock, due, wall } = world();
  agenda.set('a', at(3_600_000));
  wall.aheadMs += 3_600_000;
  await clock.advance(60_000);
  expect(due).toEqual(['a']);
});

test('closed, nothing is due any more', async () => {
  const { agenda, at, clock, due } = world();
  agenda.set('a', at(100));
  agenda.close();
  agenda.set('b', at(10));
  await clock.advance(1000);
  expect(due).toEqual([]);
  expect(clock.pendingCount).toBe(0);
});
