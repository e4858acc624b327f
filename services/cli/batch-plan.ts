/**
 * What does a file of prompts ask for? One job a line, up to a thousand in a batch. Ids and seeds come of
 * the content, so the same command asks for the same jobs however often it is given, and from any machine.
 */
import { createHash } from 'node:crypto';
import type { JobSettings, PictureRequest } from '#client';
import { wordsOf } from './pictures.js';

export interface PlannedBatch {
  readonly batchId: string;
  readonly jobs: readonly PlannedJob[];
}

export interface PlannedJob {
  readonly jobId: string;
  readonly request: PictureRequest;
  /** Of its files, without folder and ending. */
  readonly name: string;
}

/** As many as SubmitBatch takes. */
const BATCH_SIZE = 1000;

/** Empty lines are none. With a seed in `common` the first line has it and each further one the next. */
export function planBatches(text: string, common: Omit<PictureRequest, 'prompt'>, jobSettings: JobSettings): PlannedBatch[] {
  const prompts = text.split(/\r?\n/).flatMap((line) => (line.trim() === '' ? [] : [line.trim()]));
  const digits = String(prompts.length).length;
  const settings = JSON.stringify(common, (_, value) => (typeof value === 'bigint' ? value.toString() : value));
  const batches: PlannedBatch[] = [];
  for (let from = 0; from < prompts.length; from += BATCH_SIZE) {
    const part = prompts.slice(from, from + BATCH_SIZE);
    const digest = createHash('sha256').update(JSON.stringify([from, settings, jobSettings, part]));
    const batchId = `b-${digest.digest('hex').slice(0, 20)}`;
    const jobs = part.map((prompt, index) => {
      const line = from + index;
      const seed = common.seed === undefined ? seedOf(settings, prompt, line) : BigInt(common.seed) + BigInt(line);
      return {
        jobId: `${batchId}-${index}`,
        request: { ...common, prompt, seed },
        name: `${String(line + 1).padStart(digits, '0')}-${wordsOf(prompt)}`,
      };
    });
    batches.push({ batchId, jobs });
  }
  return batches;
}

/** 32 bits, because torch's CPU generator reads no more. */
function seedOf(settings: string, prompt: string, line: number): bigint {
  return BigInt(
    createHash('sha256')
      .update(JSON.stringify([settings, prompt, line]))
      .digest()
      .readUInt32BE(0),
  );
}
