import { expect, test } from 'vitest';
import { queuedJob } from '../../../test/support/jobs-store.js';
import { entryOf, type JobEntry } from './job-entry.js';
import { comparePlaces, SortedEntries } from './sorted-entries.js';

function entries(count: number): JobEntry[] {
  const stamp = { revision: 1, recordBytes: 1 };
  return Array.from({ length: count }, (_, n) => {
    const job = queuedJob(`j${n % 5}-${n}`, { submittedAtMs: Math.floor(n / 7), tenant: n % 2 ? 'a' : 'b' });
    return entryOf(job.jobId, job, stamp, (text) => text);
  });
}

test('whatever comes and goes in whatever order, it is as a sorted array', () => {
  const sorted = new SortedEntries();
  let model: JobEntry[] = [];
  let seed = 17;
  const dice = (below: number) => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % below;
  };
  const all = entries(3000);
  for (const entry of [...all].sort(() => dice(3) - 1)) {
    sorted.add(entry);
    model.push(entry);
    if (dice(4) > 0) continue;
    const [gone] = model.splice(dice(model.length), 1);
    if (gone) sorted.remove(gone);
    if (gone) sorted.remove(gone); // twice is once
  }
  model = model.sort(comparePlaces);
  expect(sorted.size).toBe(model.length);
  expect(sorted.oldest()).toBe(model[0]);
  expect([...sorted.newestFirst({ submittedAtMs: Number.POSITIVE_INFINITY, jobId: '', tenant: '' })]).toEqual([...model].reverse());
  for (const [rank, entry] of model.entries()) if (rank % 97 === 0) expect(sorted.rank(entry)).toBe(rank);
  expect([...sorted.newestFirst(model[1000] ?? expect.fail())][0]).toBe(model[999]);
  for (const entry of model) sorted.remove(entry);
  expect([sorted.size, sorted.oldest(), sorted.rank(all[0] ?? expect.fail())]).toEqual([0, undefined, 0]);
});
