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

/** What the mesh has of jobs. */
export interface HandedOver {
  readonly known: readonly KnownJob[];
  readonly lost: readonly LostJob[];
  /** For these there was no room. */
  readonly unsent: readonly PlannedJob[];
}

interface Looked {
  readonly known: readonly KnownJob[];
  readonly unknown: readonly PlannedJob[];
  /** There, but nobody can read their records. */
  readonly damaged: readonly LostJob[];
}

/** As many as SubmitBatch takes. */
const BATCH_SIZE = 1000;
/** At a time: few enough for one signal to stop (Node warns past ten). */
const LOOK_COUNT = 8;
const AGAIN_MS = 500;
/** Who submits some of the same jobs at the same moment has done so by then. */
const PATIENCE_MS = 120_000;

/** Has the mesh keep these jobs, known to it or not. Rejects when none is known and there is room for none. */
export async function handOver(planned: readonly PlannedJob[], options: SubmitOptions): Promise<HandedOver> {
  // Mostly all are known, or none. Where this is wrong about the others, submitting them tells.
  const step = Math.ceil(planned.length / LOOK_COUNT);
  const some = await lookUp(
    planned.filter((_, index) => index % step === 0),
    options,
  );
  const isNew = some.known.length + some.damaged.length === 0;
  const { known, unknown, damaged } = isNew ? { known: [], unknown: planned, damaged: [] } : await lookUp(planned, options);
  const rest = await submitJobs(unknown, options, { mayWait: known.length > 0, isLooked: !isNew });
  return { known: [...known, ...rest.known], lost: [...damaged, ...rest.lost], unsent: rest.unsent };
}

/** Each by its own id; where there are many, those of a batch at once. */
export async function lookUp(planned: readonly PlannedJob[], { jobs, signal }: SubmitOptions): Promise<Looked> {
  const found = new Map<string, Job | StatusError>();
  const lists = new Map<string, Promise<void>>();
  const list = async (batchId: string) => {
    for await (const job of jobs.list({ batchId }, { signal })) found.set(job.jobId, job);
  };
  await inParallel(planned, LOOK_COUNT, async ({ jobId }) => {
    if (found.has(jobId)) return;
    try {
      const job = await jobs.get(jobId, { signal });
      found.set(jobId, job);
      if (job.batchId === '' || planned.length <= LOOK_COUNT) return;
      const listing = lists.get(job.batchId) ?? list(job.batchId);
      lists.set(job.batchId, listing);
      await listing;
    } catch (thrown) {
      if (!(thrown instanceof StatusError)) throw thrown;
      if (thrown.reason === Reason.RECORD_DAMAGED) found.set(jobId, thrown);
      else if (thrown.reason !== Reason.UNKNOWN_JOB) throw thrown;
    }
  });
  const looked = { known: [] as KnownJob[], unknown: [] as PlannedJob[], damaged: [] as LostJob[] };
  for (const each of planned) {
    const job = found.get(each.jobId);
    if (job === undefined) looked.unknown.push(each);
    else if (job instanceof StatusError) looked.damaged.push({ planned: each, why: job.message });
    else looked.known.push({ planned: each, batchId: job.batchId, job });
  }
  return looked;
}

interface Sending {
  /** False: no room even for the first is a failure. */
  readonly mayWait: boolean;
  /** The mesh was asked for each of them, and knew none. */
  readonly isLooked: boolean;
}

/** Hands over jobs that the mesh does not know; those it has no room for are for later. */
export async function submitJobs(
  planned: readonly PlannedJob[],
  options: SubmitOptions,
  { mayWait, isLooked }: Sending,
): Promise<HandedOver> {
  const known: KnownJob[] = [];
  const lost: LostJob[] = [];
  for (let from = 0; from < planned.length; from += BATCH_SIZE) {
    const batch = await submitBatch(planned.slice(from, from + BATCH_SIZE), options, { mayWait: mayWait || known.length > 0, isLooked });
    known.push(...batch.known);
    lost.push(...batch.lost);
    if (batch.unsent.length > 0) return { known, lost, unsent: [...batch.unsent, ...planned.slice(from + BATCH_SIZE)] };
  }
  return { known, lost, unsent: [] };
}

async function submitBatch(batch: readonly PlannedJob[], options: SubmitOptions, { mayWait, isLooked }: Sending): Promise<HandedOver> {
  const { clock, jobs, settings, signal } = options;
  const startedAt = clock.now();
  const known: KnownJob[] = [];
  const lost: LostJob[] = [];
  let rest = batch;
  let areNew = isLooked;
  for (let round = 0; rest.length > 0; ) {
    const batchId = batchIdOf(rest, round);
    const requests = rest.map(({ jobId, request }) => ({ jobId, ...request }));
    try {
      const { created } = await jobs.submitBatch(requests, { batchId, ...settings, signal });
      if (created) return { known: [...known, ...rest.map((planned) => ({ planned, batchId }))], lost, unsent: [] };
      round++; // there was one: it has them still, or they were deleted since
    } catch (thrown) {
      if (!(thrown instanceof StatusError)) throw thrown;
      if (thrown.code === Code.RESOURCE_EXHAUSTED) {
        // Unless it has some of them already, which take no room.
        if (areNew && (mayWait || known.length > 0)) return { known, lost, unsent: rest };
        if (areNew) throw thrown;
      } else {
        // Somebody else has submitted some of them just now, or is about to.
        const isDoubled = thrown.reason === Reason.JOB_DIFFERS;
        if (!isDoubled || clock.now() - startedAt >= PATIENCE_MS) throw inLinesOf(thrown, rest);
        await clock.sleep(AGAIN_MS, signal);
      }
    }
    const looked = await lookUp(rest, options);
    known.push(...looked.known);
    lost.push(...looked.damaged);
    rest = looked.unknown;
    areNew = true;
  }
  return { known, lost, unsent: [] };
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
