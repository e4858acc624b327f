/**
 * Which of these jobs does the mesh have, and how does it come to have the others? Each is looked for by its own id,
 * whatever batch it is of; those that nobody knows become batches of their own.
 */
import { type Job, type JobSettings, type JobsClient, StatusError } from '#client';
import { type Clock, Code, Reason } from '#core';
import { batchIdOf, type PlannedJob } from './batch-plan.js';

export interface SubmitOptions {
  readonly jobs: JobsClient;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly settings: JobSettings;
}

export interface KnownJob {
  readonly planned: PlannedJob;
  readonly batchId: string;
  /** As it was found; absent: accepted just now. */
  readonly job?: Job;
}

/** A job that cannot be waited for. */
export interface LostJob {
  readonly planned: PlannedJob;
  readonly why: string;
}

export interface Looked {
  readonly known: readonly KnownJob[];
  readonly unknown: readonly PlannedJob[];
  /** There, but nobody can read its record. */
  readonly damaged: readonly LostJob[];
}

/** As many as SubmitBatch takes. */
const BATCH_SIZE = 1000;
/** At a time: enough for thousands in seconds, and few enough for one signal to stop (Node warns past ten). */
const LOOK_COUNT = 8;
const AGAIN_MS = 500;
/** Who submits some of the same jobs at the same moment has done so by then. */
const PATIENCE_MS = 120_000;

export async function lookUp(planned: readonly PlannedJob[], { jobs, signal }: SubmitOptions): Promise<Looked> {
  const found = await inParallel(planned, LOOK_COUNT, async ({ jobId }) => {
    try {
      return await jobs.get(jobId, { signal });
    } catch (thrown) {
      if (!(thrown instanceof StatusError)) throw thrown;
      if (thrown.reason === Reason.UNKNOWN_JOB) return undefined;
      if (thrown.reason === Reason.RECORD_DAMAGED) return thrown;
      throw thrown;
    }
  });
  const looked = { known: [] as KnownJob[], unknown: [] as PlannedJob[], damaged: [] as LostJob[] };
  for (const [index, each] of planned.entries()) {
    const job = found[index];
    if (job === undefined) looked.unknown.push(each);
    else if (job instanceof StatusError) looked.damaged.push({ planned: each, why: job.message });
    else looked.known.push({ planned: each, batchId: job.batchId, job });
  }
  return looked;
}

/**
 * Hands over jobs that the mesh did not know; those it has no room for are for later. `mayWait` false: no room even for
 * the first is a failure.
 */
export async function submitJobs(
  planned: readonly PlannedJob[],
  options: SubmitOptions,
  mayWait: boolean,
): Promise<{ accepted: KnownJob[]; unsent: readonly PlannedJob[] }> {
  const accepted: KnownJob[] = [];
  for (let from = 0; from < planned.length; from += BATCH_SIZE) {
    try {
      accepted.push(...(await submitBatch(planned.slice(from, from + BATCH_SIZE), options)));
    } catch (thrown) {
      const isFull = thrown instanceof StatusError && thrown.code === Code.RESOURCE_EXHAUSTED;
      if (isFull && (mayWait || from > 0)) return { accepted, unsent: planned.slice(from) };
      throw thrown;
    }
  }
  return { accepted, unsent: [] };
}

async function submitBatch(batch: readonly PlannedJob[], options: SubmitOptions): Promise<KnownJob[]> {
  const { clock, jobs, settings, signal } = options;
  const startedAt = clock.now();
  const accepted: KnownJob[] = [];
  let rest = batch;
  for (let round = 0; rest.length > 0; ) {
    const batchId = batchIdOf(rest, round);
    const requests = rest.map(({ jobId, request }) => ({ jobId, ...request }));
    try {
      const { created } = await jobs.submitBatch(requests, { batchId, ...settings, signal });
      if (created) return [...accepted, ...rest.map((planned) => ({ planned, batchId }))];
      round++; // there was one: it has them still, or they were deleted since
    } catch (thrown) {
      // Somebody else has submitted some of them just now, or is about to.
      const isDoubled = thrown instanceof StatusError && thrown.reason === Reason.JOB_DIFFERS;
      if (!isDoubled || clock.now() - startedAt >= PATIENCE_MS) throw thrown instanceof StatusError ? inLinesOf(thrown, rest) : thrown;
      await clock.sleep(AGAIN_MS, signal);
    }
    const { known, unknown } = await lookUp(rest, options);
    accepted.push(...known);
    rest = unknown;
  }
  return accepted;
}

/** The mesh counts items of a batch; here each is a line of the file, and all have the same options. */
function inLinesOf(error: StatusError, batch: readonly PlannedJob[]): StatusError {
  const { violations = [] } = error.details;
  if (violations.length === 0) return error;
  const inWords = violations.map(({ field, description }) => {
    const [, item = '', own] = /^items\[(\d+)\]\.request\.(.+)$/.exec(field) ?? [];
    if (own === undefined) return { field: OPTION_FIELDS[field] ?? field, description };
    return { field: own === 'prompt' ? `line ${batch[Number(item)]?.line}: prompt` : own, description };
  });
  const seen = new Set<string>();
  const distinct = inWords.filter(({ field, description }) => {
    const text = `${field}\n${description}`;
    return !seen.has(text) && seen.add(text);
  });
  const { code, reason, message } = error;
  return new StatusError({ code, reason, message, violations: distinct, cause: error });
}

const OPTION_FIELDS: Readonly<Record<string, string>> = { 'options.webhook_url': 'webhook', 'options.expire_after_ms': 'expire' };

/** All of them have ended before one that failed is told: whoever comes back finds nothing half done. */
export async function inParallel<T, R>(items: readonly T[], limit: number, work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const rest = items.entries();
  const workers = Array.from({ length: Math.min(limit, items.length) }, async () => {
    for (const [index, item] of rest) results[index] = await work(item);
  });
  for (const outcome of await Promise.allSettled(workers)) if (outcome.status === 'rejected') throw outcome.reason;
  return results;
}
