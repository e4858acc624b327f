import { expect, test, vi } from 'vitest';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { MemoryJobs, sampleJob } from '../../../test/support/memory-jobs.js';
import { type Job, UNTOLD } from '../domain/job.js';
import type { WebhookEvent } from './events.js';
import type { Outcome } from './outcome.js';
import { Teller } from './teller.js';

const HOUR = 3_600_000;
const NOON_MS = 1_700_000_000_000;
const failed: Outcome = { kind: 'failed', reason: 'status', error: 'answered 503' };
const URL_TEXT = 'http://receiver.example/';
const ended = sampleJob({
  uid: 'u1',
  state: { kind: 'cancelled', endedAtMs: NOON_MS },
  webhook: { url: URL_TEXT, ...UNTOLD, state: 'pending', eventId: 'u1-1', nextAttemptAtMs: NOON_MS },
});

/** A teller of one job. */
function tellerOf({ outcomes, mine = true }: { outcomes: Outcome[]; mine?: boolean }) {
  const clock = new ManualClock();
  const events: WebhookEvent[] = [];
  const told: Job[] = [];
  const jobs = new MemoryJobs();
  const teller = new Teller({
    clock,
    wallNow: () => NOON_MS + clock.now(),
    random: () => 0,
    emit: (event) => events.push(event),
    records: jobs,
    index: jobs,
    deliverer: {
      deliver: async (job) => {
        told.push(job);
        return outcomes.shift() ?? failed;
      },
    },
    isMine: () => mine,
    retry: { firstDelayMs: 5000, maxDelayMs: 2 * HOUR, giveUpAfterMs: 24 * HOUR },
    maxCount: 4,
    maxPerReceiverCount: 1,
  });
  jobs.onChange = (entry) => teller.job(entry, mine);
  jobs.add(ended);
  const setMine = (next: boolean) => {
    mine = next;
    teller.job(jobs.entryOf('j1'), mine);
  };
  return { teller, clock, events, told, jobs, setMine, webhook: () => jobs.jobOf('j1').webhook };
}

test('a receiver that fails is told again after growing delays, with the same id', async () => {
  const { clock, told, webhook } = tellerOf({ outcomes: [failed, failed, { kind: 'delivered' }] });
  await clock.advance(0);
  expect(webhook()).toMatchObject({ state: 'pending', attempts: 1, nextAttemptAtMs: NOON_MS + 5000, lastError: 'answered 503' });
  await clock.advance(4999);
  expect(told).toHaveLength(1);
  await clock.advance(1);
  expect(webhook()).toMatchObject({ attempts: 2, nextAttemptAtMs: NOON_MS + 15_000 });
  await clock.advance(10_000);
  expect(webhook()).toMatchObject({ state: 'delivered', attempts: 3, lastError: '' });
  expect(new Set(told.map((job) => job.webhook?.eventId))).toEqual(new Set(['u1-1']));
  expect(clock.pendingCount).toBe(0);
});

test('a receiver that fails for a day is given up', async () => {
  const { clock, events, webhook } = tellerOf({ outcomes: [] });
  await clock.advance(24 * HOUR - 1);
  expect(webhook()?.state).toBe('pending');
  await clock.advance(1);
  expect(webhook()).toMatchObject({ state: 'givenUp', lastError: 'answered 503' });
  expect(events).toEqual([{ type: 'webhookGivenUp', tenant: 'acme', jobId: 'j1', eventId: 'u1-1', error: 'answered 503' }]);
  await clock.advance(HOUR);
  expect(clock.pendingCount).toBe(0);
});

test('while NATS is away nobody is told what could not be recorded; it is made up for', async () => {
  const { clock, events, told, webhook, jobs } = tellerOf({ outcomes: [{ kind: 'delivered' }] });
  jobs.away = true;
  await clock.advance(12_000);
  expect(told).toEqual([]);
  expect(events.map(({ type }) => type)).toEqual(['webhookPostponed', 'webhookPostponed', 'webhookPostponed']);
  jobs.away = false;
  await clock.advance(5000);
  expect(webhook()?.state).toBe('delivered');
});

test("another replica's jobs are not told, until they are ours", async () => {
  const { clock, told, setMine } = tellerOf({ outcomes: [{ kind: 'delivered' }], mine: false });
  await clock.advance(60_000);
  expect(told).toEqual([]);
  setMine(true);
  await clock.advance(0);
  expect(told).toHaveLength(1);
});

test('what is not due by its record is not told, though this replica thinks so, and not asked for without a pause', async () => {
  const { teller, clock, told, jobs } = tellerOf({ outcomes: [] });
  const stale = jobs.entryOf('j1');
  jobs.force('j1', { kind: 'told', eventId: 'u1-1', webhook: { url: URL_TEXT, ...UNTOLD, state: 'delivered', eventId: 'u1-1' } });
  vi.spyOn(jobs, 'get').mockReturnValue(stale);
  const read = vi.spyOn(jobs, 'readJob');
  teller.job(stale, true);
  await clock.advance(12_000);
  expect(told).toEqual([]);
  expect(read).toHaveBeenCalledTimes(3);
});

test('drain() waits for the attempt under way', async () => {
  const { teller, clock } = tellerOf({ outcomes: [{ kind: 'delivered' }] });
  await clock.advance(0);
  await teller.drain();
  teller.close();
  expect(clock.pendingCount).toBe(0);
});
