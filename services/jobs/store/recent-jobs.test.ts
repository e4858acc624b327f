import { beforeEach, expect, test } from 'vitest';
import { queuedJob } from '../../../test/support/jobs-store.js';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { RecentJobs } from './recent-jobs.js';

const MIB = 2 ** 20;
const stored = (jobId: string, revision = 1) => ({ job: queuedJob(jobId), revision });
let clock: ManualClock;
let recent: RecentJobs;
beforeEach(() => {
  clock = new ManualClock();
  recent = new RecentJobs(clock);
});
const known = (...keys: string[]) => keys.filter((key) => recent.get(key));

test('the last told are kept, up to their bound in bytes, each as it was told last', () => {
  for (const key of ['a', 'b', 'c', 'd']) recent.told(key, stored(key), MIB);
  recent.told('a', stored('a', 9), MIB);
  expect(recent.get('a')?.revision).toBe(9);
  recent.told('e', stored('e'), MIB);
  expect(known('a', 'b', 'c', 'd', 'e')).toEqual(['a', 'c', 'd', 'e']);
  recent.forget('c');
  recent.forget('c');
  recent.told('f', stored('f'), MIB);
  expect(known('a', 'c', 'd', 'e', 'f')).toEqual(['a', 'd', 'e', 'f']);
});

test('one that is larger than all there is room for is not kept', () => {
  recent.told('a', stored('a'), MIB);
  recent.told('large', stored('large'), 5 * MIB);
  recent.told('b', stored('b'), 4 * MIB);
  expect(known('a', 'large', 'b')).toEqual(['b']);
});

test('after a second it is too old to be relied on', async () => {
  recent.told('a', stored('a'), MIB);
  await clock.advance(900);
  recent.told('b', stored('b'), MIB);
  expect(known('a', 'b')).toEqual(['a', 'b']);
  await clock.advance(200);
  expect(known('a', 'b')).toEqual(['b']);
});
