/**
 * `npm run test:crash -- --rounds N --json FILE`: rounds of random kills (round.ts), 20 × 200 jobs × a minute unless
 * told otherwise. Prints each round with its seed; `--seed N` begins with that one. Exit code 1 when anything was
 * lost, doubled, wrong, orphaned or stuck, or never accepted.
 */
import { systemRandom } from '#runtime';
import { finish, printTable, readFlags } from '../bench/support/report.js';
import { type Round, runRound } from './round.js';
import type { Figures } from './verdict.js';

/** Seed '': any. */
const flags = readFlags({ rounds: '20', jobs: '200', seconds: '60', seed: '' });
const FIGURES = ['accepted', 'lost', 'doubled', 'wrong', 'orphaned', 'stuck'] as const;
const jobCount = Number(flags.jobs);
const firstSeed = flags.seed === '' ? Math.floor(systemRandom() * 1e6) : Number(flags.seed);

const rounds: Round[] = [];
for (let index = 0; index < Number(flags.rounds); index++) {
  const round = await runRound({ seed: firstSeed + index, jobCount, killMs: 1000 * Number(flags.seconds) });
  rounds.push(round);
  const { attempts, complaints, dir, failedAttempts, faults, figures, killed, seed, settledMs } = round;
  console.log(`\nround ${index + 1}, --seed ${seed}: ${FIGURES.map((name) => `${name} ${figures[name]}`).join(', ')}`);
  console.log(`  killed ${killed.length}: ${killed.join(', ')}`);
  console.log(`  attempts ${attempts}, of them failed ${failedAttempts}; the last job ended ${settledMs} ms after the last kill`);
  for (const line of [...faults, ...complaints]) console.log(`  ${line}`);
  if (!isClean(round)) console.log(`  lines and store: ${dir}`);
}

const figures = Object.fromEntries(
  FIGURES.map((name) => [name, rounds.reduce((sum, round) => sum + round.figures[name], 0)]),
) as unknown as Figures;
printTable(`${rounds.length} rounds of ${jobCount} jobs`, [...FIGURES], [FIGURES.map((name) => String(figures[name]))]);
finish({ ...figures, rounds: rounds.map(({ dir: _dir, ...round }) => round) });
if (!rounds.every(isClean)) process.exitCode = 1;

function isClean({ faults, figures }: Round): boolean {
  return faults.length === 0 && figures.accepted === jobCount;
}
