import { expect, test } from 'vitest';
import { backlogClock } from './backlog.js';

test.each([
  ['nothing waits: the first free slot', [300, 40_000], 0, 300],
  ['a slot that is long taken delays nobody', [300, 40_000], 1000, 1300],
  ['both take their part once both are free', [100, 300], 1000, 700],
  ['idle slots share', [0, 0, 0, 0], 1000, 250],
  ['a slot that says it is never free', [100, Number.POSITIVE_INFINITY], 0, 100],
  ['no slot at all: as if there were one', [], 500, 500],
])('%s', (_, freeInMs, workMs, expected) => {
  expect(backlogClock(freeInMs)(workMs)).toBe(expected);
});

test('what is worked off until then is the backlog, whatever the slots', () => {
  for (let seed = 1; seed <= 200; seed++) {
    let state = seed;
    const random = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state / 2 ** 32;
    };
    const freeInMs = Array.from({ length: 1 + Math.floor(random() * 9) }, () => random() * 5000);
    const workMs = random() * 20_000;
    const at = backlogClock(freeInMs)(workMs);
    const doneMs = freeInMs.reduce((sum, ms) => sum + Math.max(0, at - ms), 0);
    expect(doneMs, `seed ${seed}`).toBeCloseTo(workMs, 6);
    expect(at).toBeGreaterThanOrEqual(Math.min(...freeInMs));
  }
});
