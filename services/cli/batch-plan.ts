/**
 * What does a file of prompts ask for? One job a line. Ids and seeds come of what the line says, not of where it stands:
 * the same line with the same options is the same job however often the command is given, from any machine, and
 * whatever became of the other lines.
 */
import { createHash } from 'node:crypto';
import type { JobSettings, PictureRequest } from '#client';
import { wordsOf } from './pictures.js';

export interface PlannedJob {
  readonly jobId: string;
  /** Of the file, from 1. */
  readonly line: number;
  readonly request: PictureRequest;
  /** Of its files, without folder and ending. */
  readonly name: string;
}

/** Empty lines are none. With a seed in `common` the first line has it and each further one the next. */
export function planJobs(text: string, common: Omit<PictureRequest, 'prompt'>, jobSettings: JobSettings): PlannedJob[] {
  const prompts = text.split(/\r?\n/).flatMap((line, index) => (line.trim() === '' ? [] : [{ prompt: line.trim(), line: index + 1 }]));
  const digits = String(prompts.length).length;
  const { seed: firstSeed, ...others } = common;
  const settings = JSON.stringify(others, (_, value) => (typeof value === 'bigint' ? value.toString() : value));
  const counts = new Map<string, number>();
  return prompts.map(({ prompt, line }, index) => {
    const equalBefore = counts.get(prompt) ?? 0;
    counts.set(prompt, equalBefore + 1);
    const seed = firstSeed === undefined ? seedOf([settings, prompt, equalBefore]) : BigInt(firstSeed) + BigInt(index);
    const own = firstSeed === undefined ? equalBefore : 0; // the seeds are apart already
    return {
      jobId: `j-${digestOf([settings, jobSettings, prompt, seed.toString(), own]).toString('hex').slice(0, 20)}`,
      line,
      request: { ...common, prompt, seed },
      name: `${String(index + 1).padStart(digits, '0')}-${wordsOf(prompt)}`,
    };
  });
}

/**
 * Of a batch of these jobs: whoever submits the same ones at the same time, or again because no answer came, submits the
 * same batch. `round`: there was one already, of which jobs were deleted since.
 */
export function batchIdOf(jobs: readonly PlannedJob[], round: number): string {
  return `b-${digestOf([jobs.map(({ jobId }) => jobId), round])
    .toString('hex')
    .slice(0, 20)}`;
}

/** 32 bits, because torch's CPU generator reads no more. */
function seedOf(parts: readonly unknown[]): bigint {
  return BigInt(digestOf(parts).readUInt32BE(0));
}

function digestOf(parts: readonly unknown[]): Buffer {
  return createHash('sha256').update(JSON.stringify(parts)).digest();
}
