import { expect, test } from 'vitest';
import { candidate, ownerOf } from './ownership.js';

const keys = Array.from({ length: 3000 }, (_, index) => `job.acme.batch-${index}`);
const owners = (ids: readonly string[]) => {
  const candidates = ids.map(candidate);
  return keys.map((key) => ownerOf(key, candidates));
};
const countOf = (list: readonly unknown[], one: unknown) => list.filter((each) => each === one).length;

test('everybody has a like part, in whatever order they are named', () => {
  const all = owners(['a', 'b', 'c']);
  for (const id of ['a', 'b', 'c']) expect(countOf(all, id) / keys.length).toBeCloseTo(1 / 3, 1);
  expect(owners(['c', 'a', 'b'])).toEqual(all);
});

test('when one leaves, only its jobs change hands, to all the others', () => {
  const before = owners(['a', 'b', 'c']);
  const after = owners(['a', 'c']);
  expect(after.filter((owner, index) => before[index] !== 'b' && owner !== before[index])).toEqual([]);
  const inherited = after.filter((_, index) => before[index] === 'b');
  expect(countOf(inherited, 'a') / inherited.length).toBeCloseTo(0.5, 1);
});

test('jobs whose names differ by one character are spread, by replicas that do as well', () => {
  const all = owners(['jobs-1', 'jobs-2']);
  expect(countOf(all, 'jobs-1') / keys.length).toBeCloseTo(0.5, 1);
});

test('alone it is everybody’s; without anybody it is nobody’s', () => {
  expect(new Set(owners(['a']))).toEqual(new Set(['a']));
  expect(ownerOf('job.acme.x', [])).toBeUndefined();
});
