import { expect, test } from 'vitest';
import { DEFAULT_SETTINGS } from './settings.js';
import { TripRule } from './trip-rule.js';

/** Feeds "+" as success and "-" as failure; returns what the last one said. */
function feed(outcomes: string): string | undefined {
  const rule = new TripRule(DEFAULT_SETTINGS);
  let cause: string | undefined;
  for (const outcome of outcomes) {
    cause = undefined;
    if (outcome === '+') rule.success();
    else cause = rule.failure();
  }
  return cause;
}

test.each([
  ['-', undefined],
  ['--', undefined],
  ['---', 'consecutiveFailures'],
  ['--+--', undefined],
  ['--+---', 'consecutiveFailures'],
  ['+-+-+-+-+-', 'failureRatio'], // 5 of exactly 10: half is enough
  ['+-+-+-+-', undefined], // half of 8: too few to judge
  ['++-+-+-+-+', undefined], // a success never opens
  ['+++-+-+-+-', undefined], // 4 of 10
  ['+++++-+-+-+-+-', 'failureRatio'], // the oldest are forgotten: 5 of the last 10
])('%s → %s', (outcomes, cause) => {
  expect(feed(outcomes)).toBe(cause);
});

test('clear() forgets both counts', () => {
  const rule = new TripRule(DEFAULT_SETTINGS);
  rule.failure();
  rule.failure();
  rule.clear();
  expect(rule.failure()).toBeUndefined();
});
