import { expect, test } from 'vitest';
import { queuedJob } from '../../../test/support/jobs-store.js';
import { RecentJobs } from './recent-jobs.js';

const MIB = 2 ** 20;
const stored = (jobId: string, revision = 1) => ({ job: queuedJob(jobId), revision });

test('the last seen are kept, up to their bound in bytes, each as it was seen last', () => {
  const recent = new RecentJobs();
  for (const key of ['a', 'b', 'c', 'd']) recent.saw(key, stored(key), MIB);
  recent.saw('a', stored('a', 9), MIB);
  expect(recent.get('a')?.revision).toBe(9);
  recent.saw('e', stored('e'), MIB);
  expect(['a', 'b', 'c', 'd', 'e'].filter((key) => recent.get(key))).toEqual(['a', 'c', 'd', 'e']);
  recent.forget('c');
  recent.forget('c');
  recent.saw('f', stored('f'), MIB);
  expect(['a', 'd', 'e', 'f'].every((key) => recent.get(key))).toBe(true);
});

test('one that is larger than all there is room for is not kept', () => {
  const recent = new RecentJobs();
  recent.saw('a', stored('a'), MIB);
  recent.saw('large', stored('large'), 5 * MIB);
  recent.saw('b', stored('b'), 4 * MIB);
  expect(['a', 'large', 'b'].map((key) => recent.get(key)?.job.jobId)).toEqual([undefined, undefined, 'b']);
});
