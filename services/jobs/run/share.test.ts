import { expect, test } from 'vitest';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { MemoryJobs, sampleJob } from '../../../test/support/memory-jobs.js';
import { type LivingReplica, Share } from './share.js';

function world() {
  const jobs = new MemoryJobs();
  const told: string[] = [];
  const state: { replicas: LivingReplica[] | undefined } = { replicas: undefined };
  const clock = new ManualClock();
  const share = new Share({
    clock,
    replicaId: 'a',
    replicas: () => state.replicas,
    entries: () => jobs.entries(),
    listeners: [
      { job: ({ jobId }, mine) => told.push(`${jobId} ${mine ? 'mine' : 'not mine'}`), removed: (key) => told.push(`${key} removed`) },
    ],
  });
  jobs.onChange = (entry) => share.job(entry);
  jobs.onRemoved = (key) => share.removed(key);
  const become = (...replicas: LivingReplica[]) => {
    state.replicas = replicas;
    told.length = 0;
    share.replicasChanged();
  };
  return { clock, jobs, share, told, become };
}
const a = { id: 'a', incarnation: '1' };
const b = { id: 'b', incarnation: '1' };

test('until it is known who lives, nothing is ours and everybody lives', () => {
  const { become, jobs, share, told } = world();
  jobs.add(sampleJob());
  expect(told).toEqual(['j1 not mine']);
  expect(share.isAlive('b/1')).toBe(true);
  become(a);
  expect(told).toEqual(['j1 mine']);
  expect(share.isAlive('b/1')).toBe(false);
});

test('jobs that change hands are told, and those that run', () => {
  const { become, jobs, share, told } = world();
  become(a);
  for (let index = 0; index < 20; index++) jobs.add(sampleJob({ jobId: `j${index}` }));
  jobs.add(sampleJob({ jobId: 'running', state: { kind: 'running', worker: 'b/1', nodeId: 'n', startedAtMs: 1 } }));
  become(a, b);
  expect(told.filter((line) => /^j.* not mine/.test(line)).length).toBeGreaterThan(3);
  expect(told.filter((line) => /^j.* mine/.test(line) && !line.endsWith('not mine'))).toEqual([]);
  expect(share.isAlive('b/1')).toBe(true);
  become(a, { ...b, incarnation: '2' });
  expect(told.filter((line) => line.startsWith('j'))).toEqual([]);
  expect(share.isAlive('b/1')).toBe(false);
});

test('who drains owns nothing and is alive', () => {
  const { become, jobs, share, told } = world();
  become(a, b);
  for (let index = 0; index < 20; index++) jobs.add(sampleJob({ jobId: `j${index}` }));
  become(a, { ...b, draining: true });
  expect(share.size).toBe(20);
  expect(share.isAlive('b/1')).toBe(true);
  expect(told.every((line) => line.endsWith(' mine'))).toBe(true);
});

test('a crowd changes hands in slices; who comes or goes meanwhile has it begin anew', async () => {
  const { become, clock, jobs, share } = world();
  for (let index = 0; index < 2500; index++) jobs.add(sampleJob({ jobId: `j${index}` }));
  become(a);
  const isLastMine = () => share.isMine(jobs.entryOf('j2499').key);
  expect([share.size, isLastMine()]).toEqual([1000, false]);
  become({ ...a, draining: true }, b);
  expect([share.size, clock.pendingCount]).toEqual([0, 1]);
  become(a);
  await clock.advance(0);
  await clock.advance(0);
  expect([share.size, clock.pendingCount, isLastMine()]).toEqual([2500, 0, true]);
});
