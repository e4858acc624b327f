import { expect, test } from 'vitest';
import { UNTOLD, type Webhook } from '../domain/job.js';
import { afterAttempt, type Outcome, type RetrySettings } from './outcome.js';

const HOUR = 3_600_000;
const retry: RetrySettings = { firstDelayMs: 5000, maxDelayMs: 2 * HOUR, giveUpAfterMs: 24 * HOUR };
const pending: Webhook = { url: 'https://example.com/', ...UNTOLD, state: 'pending', eventId: 'u-1', nextAttemptAtMs: 1000 };
const failed: Outcome = { kind: 'failed', reason: 'status', error: 'answered 503' };
const after = (webhook: Webhook, outcome: Outcome, nowMs: number, chance = 0) =>
  afterAttempt(webhook, outcome, { ...retry, nowMs, random: () => chance });

test('afterAttempt() remembers what was delivered, and forgets the failure before', () => {
  const delivered = after(after(pending, failed, 1000), { kind: 'delivered' }, 9000);
  expect(delivered).toEqual({ ...pending, state: 'delivered', attempts: 2, firstAttemptAtMs: 1000, nextAttemptAtMs: 0, lastError: '' });
});

test('afterAttempt() doubles the delays up to their bound, tries once more at 24 h and then gives up', () => {
  let webhook = pending;
  let nowMs = 1000;
  const delaysS: number[] = [];
  for (;;) {
    webhook = after(webhook, failed, nowMs);
    if (webhook.state !== 'pending') break;
    delaysS.push((webhook.nextAttemptAtMs - nowMs) / 1000);
    nowMs = webhook.nextAttemptAtMs;
  }
  expect(delaysS.slice(0, 12)).toEqual([5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 7200]);
  expect(Math.max(...delaysS)).toBe(7200);
  expect(nowMs).toBe(1000 + 24 * HOUR);
  expect(webhook).toMatchObject({ state: 'givenUp', attempts: delaysS.length + 1, nextAttemptAtMs: 0, lastError: 'answered 503' });
});

test('afterAttempt() takes up to half of a delay away by chance', () => {
  expect(after(pending, failed, 1000, 0.5).nextAttemptAtMs).toBe(1000 + 3750);
  expect(after(pending, failed, 1000, 0.999).nextAttemptAtMs).toBeGreaterThan(1000 + 2500);
});

test('afterAttempt() counts from the first attempt, not from the end of the job: who was away for days still tells', () => {
  expect(after(pending, failed, 1000 + 48 * HOUR)).toMatchObject({ state: 'pending', attempts: 1, firstAttemptAtMs: 1000 + 48 * HOUR });
});

test('afterAttempt() gives up at once on a receiver that wants no more', () => {
  const gone: Outcome = { kind: 'unwanted', reason: 'gone', error: 'answered 410: it wants no more' };
  expect(after(pending, gone, 1000)).toMatchObject({ state: 'givenUp', attempts: 1, lastError: 'answered 410: it wants no more' });
});
