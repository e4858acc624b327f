import { expect, test } from 'vitest';
import { batchIdOf, type PlannedJob, planJobs } from './batch-plan.js';
import { wordsOf } from './pictures.js';

const idsOf = (plan: readonly PlannedJob[]) => plan.map(({ jobId }) => jobId);

test('planJobs(): the same line is the same job, wherever it stands and whatever the ends of lines; another is another', () => {
  const plan = planJobs('a red circle\r\n\r\n  a yellow heart \n', { steps: 4 }, {});
  expect(plan.map(({ name, line }) => [name, line])).toEqual([
    ['1-a-red-circle', 1],
    ['2-a-yellow-heart', 3],
  ]);
  const [circle = '', heart = ''] = idsOf(plan);
  for (const id of [circle, heart]) expect(id).toMatch(/^j-[0-9a-f]{20}$/);
  expect(idsOf(planJobs('a red circle\na yellow heart', { steps: 4 }, {}))).toEqual([circle, heart]);
  expect(idsOf(planJobs('a yellow heart\nnew\na red circle', { steps: 4 }, {}))).toEqual([heart, expect.any(String), circle]);
  const others = [planJobs('a red circle', { steps: 5 }, {}), planJobs('a red circle', { steps: 4 }, { webhookUrl: 'http://x' })];
  expect(new Set([circle, ...others.flatMap(idsOf)]).size).toBe(3);
  expect(new Set([batchIdOf(plan, 0), batchIdOf(plan, 1), batchIdOf(plan.slice(1), 0), batchIdOf([...plan], 0)]).size).toBe(3);
});

test('planJobs(): seeds are fixed, and equal lines are as many pictures', () => {
  const same = planJobs('x\nx\ny', {}, {});
  expect(new Set(same.map(({ request }) => request.seed)).size).toBe(3);
  expect(idsOf(planJobs('x\ny\nz\nx', {}, {})).filter((id) => idsOf(same).includes(id))).toHaveLength(3);
  const counted = planJobs('x\nx', { seed: 7n }, {});
  expect(counted.map(({ request }) => request.seed)).toEqual([7n, 8n]);
  expect(new Set(idsOf(counted)).size).toBe(2);
  expect(idsOf(planJobs('y\nx', { seed: 7n }, {}))[1]).toBe(idsOf(counted)[1]);
});

test.each([
  ['वृत्त लाल', 'वृत्त-लाल'],
  ['Cafe\u0301 bleu', 'caf\u00e9-bleu'],
  ['a ❤\ufe0f b\u0301!', 'a-b\u0301'],
  ['\u0301x', 'x'],
  ['?!', 'picture'],
  ['ab '.repeat(40), 'ab-'.repeat(20).slice(0, -1)],
  ['\ud83d\ude00', 'picture'],
])('wordsOf(%j)', (prompt, words) => {
  expect(wordsOf(prompt)).toBe(words);
});

test('wordsOf(): a name is bounded in bytes, and no letter is cut from its marks', () => {
  const words = wordsOf('\u0915\u094d\u0937\u093f'.repeat(50));
  expect(Buffer.byteLength(words)).toBeLessThanOrEqual(200);
  expect(words.endsWith('\u0937\u093f')).toBe(true);
});
