import { expect, test } from 'vitest';
import { Turns } from './turns.js';

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

test('so many go on in each turn, in their order; who comes later waits for those before', async () => {
  const turns = new Turns(2);
  const gone: string[] = [];
  const go = (name: string) => void turns.next().then(() => gone.push(name));
  for (const name of ['a', 'b', 'c', 'd', 'e']) go(name);
  expect(gone).toEqual([]);
  await turn();
  expect(gone).toEqual(['a', 'b']);
  go('f');
  await turn();
  expect(gone).toEqual(['a', 'b', 'c', 'd']);
  await turn();
  expect(gone).toEqual(['a', 'b', 'c', 'd', 'e', 'f']);
  go('g');
  await turn();
  expect(gone.at(-1)).toBe('g');
});
