import { expect, test } from 'vitest';
import { ManualClock } from '../../test/support/manual-clock.js';
import { Accounts } from './accounts.js';
import { AddressLimit } from './address-limit.js';
import { TokenBucket } from './token-bucket.js';

const LIMITS = { tenant: 'acme', ratePerSec: 5, burst: 10, gpuSecondsPerMinute: 60 };

/** Starts requests one after another until it is told to wait. */
function takeAll(bucket: TokenBucket, nowMs: number): number {
  let count = 0;
  while (count < 1e6 && bucket.waitMs(1, nowMs) === 0) {
    bucket.charge(1, nowMs);
    count++;
  }
  return count;
}

test('a burst at once, then the rate; who waits as told gets in', async () => {
  const clock = new ManualClock();
  const bucket = new TokenBucket({ perSec: 5, capacity: 10 }, clock.now());
  expect(takeAll(bucket, clock.now())).toBe(10);
  expect(bucket.waitMs(1, clock.now())).toBe(200);
  await clock.advance(199);
  expect(bucket.waitMs(1, clock.now())).toBe(1);
  await clock.advance(1);
  expect(takeAll(bucket, clock.now())).toBe(1);
  await clock.advance(60_000);
  expect(takeAll(bucket, clock.now())).toBe(10); // rest is not saved up beyond the burst
});

test('a clock that jumps ahead fills the bucket once; one that stands still or falls back adds nothing and locks nobody out', () => {
  const bucket = new TokenBucket({ perSec: 5, capacity: 10 }, 1e9);
  takeAll(bucket, 1e9);
  expect(takeAll(bucket, 1e15)).toBe(10);
  expect(takeAll(bucket, 5)).toBe(0);
  expect(bucket.waitMs(1, 5)).toBe(200);
  expect(takeAll(bucket, 205)).toBe(1);
});

test('debt is paid back first, and is never more than a minute', () => {
  const bucket = new TokenBucket({ perSec: 5, capacity: 10 }, 0);
  bucket.chargeElsewhere(1e9, 0);
  bucket.chargeElsewhere(1, 0);
  expect(bucket.waitMs(0, 0)).toBe(60_000);
  expect(takeAll(bucket, 60_200)).toBe(1);
});

test('GPU time: let in while there is no debt, corrected afterwards, given back when it was less', () => {
  const accounts = new Accounts();
  accounts.replace([LIMITS], 0);
  expect(accounts.work('acme', 90_000, 0)).toEqual({ kind: 'charged' }); // 60 were there
  expect(accounts.work('acme', 1000, 0)).toMatchObject({ kind: 'limited', retryAfterMs: 30_000, limit: '60 GPU-seconds a minute' });
  accounts.correct('acme', -35_000, 0);
  expect(accounts.work('acme', 1000, 0)).toEqual({ kind: 'charged' });
});

test('a prediction far beyond the account is corrected to what it was', () => {
  const accounts = new Accounts();
  accounts.replace([LIMITS], 0);
  accounts.work('acme', 1e9, 0);
  accounts.correct('acme', 59_000 - 1e9, 0);
  expect(accounts.work('acme', 2000, 0).kind).toBe('charged');
  expect(accounts.work('acme', 1, 0)).toMatchObject({ retryAfterMs: 1000 });
});

test('new limits hold at once and forgive nothing; a tenant that is gone has none', () => {
  const accounts = new Accounts();
  accounts.replace([LIMITS], 0);
  for (let i = 0; i < 10; i++) expect(accounts.request('acme', 0).kind).toBe('charged');
  accounts.replace([{ ...LIMITS, ratePerSec: 1 }], 0);
  expect(accounts.request('acme', 0)).toMatchObject({ kind: 'limited', retryAfterMs: 1000 });
  accounts.replace([], 0);
  expect(accounts.request('acme', 0)).toEqual({ kind: 'charged' });
});

test('several routers that hear of each other let in together what one would, within 20 %', () => {
  const routers = [1, 2, 3, 4].map(() => new Accounts());
  for (const router of routers) router.replace([LIMITS], 0);
  let startedCount = 0;
  // News travels with the next look, 20 ms; callers press at all four all the time, at one more than at the rest.
  let news: number[] = [];
  for (let nowMs = 0; nowMs < 60_000; nowMs += 20) {
    for (const from of news)
      for (const [index, router] of routers.entries())
        if (index !== from) router.servedElsewhere('acme', { requestCount: 1, costMs: 100 }, nowMs);
    news = [];
    for (const [index, router] of routers.entries()) {
      for (let tries = index === 0 ? 5 : 1; tries > 0; tries--) {
        if (router.request('acme', nowMs).kind === 'charged') news.push(index);
      }
    }
    startedCount += news.length;
  }
  expect(startedCount).toBeLessThanOrEqual(1.2 * (60 * 5 + 10));
  expect(startedCount).toBeGreaterThanOrEqual(0.8 * 60 * 5);
});

test('each address has its own rate, whatever the port, and ten thousand others take it from none', () => {
  const limit = new AddressLimit({ perSec: 1, capacity: 2 });
  expect([limit.take('10.0.0.1:1', 0), limit.take('10.0.0.1:2', 0), limit.take('10.0.0.1:3', 0)]).toEqual([0, 0, 1000]);
  expect(limit.take('[::1]:1', 0)).toBe(0);
  for (let i = 0; i < 9000; i++) limit.take(`host-${i}:1`, 0);
  expect(limit.take('10.0.0.1:4', 0)).toBe(1000);
});
