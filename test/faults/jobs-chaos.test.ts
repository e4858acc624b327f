/** A short round of `npm run test:crash`: processes killed at random while jobs are submitted, drawn and watched. DMESH_TEST_SEED=n replays one. */
import { expect, test } from 'vitest';
import { runRound } from '../crash/round.js';

test('whatever is killed and whenever, every accepted job has one right result', { timeout: 240_000 }, async () => {
  const seed = Number(process.env.DMESH_TEST_SEED ?? Math.floor(Math.random() * 1e6));
  const { complaints, dir, faults, figures, killed } = await runRound({ seed, jobCount: 60, killMs: 15_000 });
  const story = `DMESH_TEST_SEED=${seed} (${dir}): killed ${killed.join(', ')}; ${[...faults, ...complaints].join('; ')}`;
  expect(figures, story).toEqual({ accepted: 60, lost: 0, doubled: 0, wrong: 0, orphaned: 0, stuck: 0 });
});
