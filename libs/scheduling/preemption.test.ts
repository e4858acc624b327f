import { describe, expect, test } from 'vitest';
import { type Bid, mayUse, type Pausable, type PreemptionPolicy, preemptionFor } from './preemption.js';

const NOW = 1000;
const policy: PreemptionPolicy = { mode: 'short', maxPauseCount: 2, maxPauseMs: 30_000 };
const bid = (changes: Partial<Bid> = {}): Bid => ({ rank: 2, leadMs: 0, dueAt: 0, priority: 'normal', costMs: 400, ...changes });
/** It needs another second. */
const running = (changes: Partial<Pausable> = {}): Pausable => ({
  priority: 'normal',
  deadlineAt: Number.POSITIVE_INFINITY,
  expectedEndAt: NOW + 1000,
  stepMs: 50,
  pauseCount: 0,
  pausedMs: 0,
  ...changes,
});
const high = (changes: Partial<Bid> = {}) => bid({ rank: 1, priority: 'high', ...changes });
const decide = (newcomer: Bid, old: Pausable, changes: Partial<PreemptionPolicy> = {}) =>
  preemptionFor(newcomer, old, { ...policy, ...changes }, NOW);

describe('a pause is granted', () => {
  test.each([
    ['HIGH, though longer than what is left', high({ costMs: 3000 }), running(), { priority: 'high', maxCostMs: 10_000 }],
    ['HIGH over LOW', high(), running({ priority: 'low' }), { priority: 'high', maxCostMs: 10_000 }],
    ['one that takes two fifths of what is left', bid(), running(), { priority: 'normal', maxCostMs: 400 }],
    ['a short NORMAL over a LOW', bid(), running({ priority: 'low' }), { priority: 'low', maxCostMs: 400 }],
  ] as const)('to %s', (_, newcomer, old, expected) => {
    expect(decide(newcomer, old)).toEqual(expected);
    expect(mayUse(newcomer, expected)).toBe(true);
  });

  test('with a bound that keeps half of what the running request has to spare', () => {
    expect(decide(high(), running({ deadlineAt: NOW + 2000 }))).toEqual({ priority: 'high', maxCostMs: 500 });
  });
});

describe('the running request goes on', () => {
  test.each([
    ['when nobody is to be paused', high(), running(), { mode: 'off' }],
    ['before a short one, when only HIGH may', bid(), running(), { mode: 'high' }],
    ['when it is HIGH itself', high({ costMs: 1 }), running({ priority: 'high' }), {}],
    ['before a lower class, however short', bid({ rank: 0, priority: 'low', costMs: 1 }), running(), {}],
    ['before one that takes more than two fifths of what is left', bid({ costMs: 401 }), running(), {}],
    ['when it is nearly done', high({ costMs: 1 }), running({ expectedEndAt: NOW + 99 }), {}],
    ['before one so long that it does not feel the wait', high({ costMs: 10_001 }), running(), {}],
    ['when it was paused often enough', high(), running({ pauseCount: 2 }), {}],
    ['when it was paused long enough', high(), running({ pausedMs: 29_700 }), {}],
    ['when it would be late', high(), running({ deadlineAt: NOW + 1700 }), {}],
    ['when it is late anyway', high(), running({ deadlineAt: NOW + 900 }), {}],
    ['before one of unknown cost', bid({ costMs: Number.POSITIVE_INFINITY }), running(), {}],
  ] as const)('%s', (_, newcomer, old, changes) => {
    expect(decide(newcomer, old, changes)).toBeUndefined();
  });
});

test('a grant is used by what it was given for, or by something more urgent', () => {
  const preemption = { priority: 'normal', maxCostMs: 500 } as const;
  expect(mayUse({ priority: 'high', costMs: 500 }, preemption)).toBe(true);
  expect(mayUse({ priority: 'normal', costMs: 501 }, preemption)).toBe(false);
  expect(mayUse({ priority: 'low', costMs: 1 }, preemption)).toBe(false);
});
