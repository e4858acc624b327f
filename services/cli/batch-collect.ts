/**
 * From planned batches to files: what is not there yet is submitted, what is drawn is fetched as it comes,
 * and a file that has the right bytes already is left alone. Whatever stops it, the same plan goes on where it was, also
 * when the mesh has forgotten the jobs: of what lies in the folder nothing is drawn again.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type Batch, Code, hasEnded, type Job, type JobSettings, JobState, type JobsClient, StatusError } from '#client';
import { type Clock, Reason } from '#core';
import type { PlannedBatch, PlannedJob } from './batch-plan.js';
import { digestOf, type Lying, lyingIn, type NotedFile, noteFiles } from './folder-notes.js';
import { extensionOf } from './pictures.js';

export interface CollectOptions {
  readonly jobs: JobsClient;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Where pictures go; made where it is missing. */
  readonly dir: string;
  readonly settings: JobSettings;
  readonly onProgress: (progress: CollectProgress) => void;
}

export interface CollectProgress {
  readonly jobCount: number;
  /** Of those, not accepted by the mesh yet. */
  readonly unsentCount: number;
  readonly runningCount: number;
  readonly endedCount: number;
  /** Files that are where they should be. */
  readonly fileCount: number;
  /** 0: not known. */
  readonly etaMs: number;
  /** Why the mesh does not answer just now; it is asked again. */
  readonly trouble?: StatusError;
}

export interface Collected {
  /** Files fetched now … */
  readonly fetched: readonly string[];
  /** … of those, in place of another file … */
  readonly replaced: readonly string[];
  /** … and those that were there. */
  readonly kept: readonly string[];
  /** Jobs that ended without a picture. */
  readonly failed: readonly { readonly planned: PlannedJob; readonly job: Job }[];
  /** Jobs that the mesh does not know any more. */
  readonly gone: readonly PlannedJob[];
}

const LOOK_EVERY_MS = 500;
/** A mesh that is started anew, or a NATS that went, is back by then; who waits loses nothing by it. */
const PATIENCE_MS = 120_000;
/** Pictures fetched at a time. */
const FETCH_COUNT = 4;

/** What is still to be drawn or fetched, and the files of the rest. `dir` '': nobody knows. */
export async function restOf(plan: readonly PlannedBatch[], dir: string): Promise<{ rest: PlannedBatch[]; lying: Lying }> {
  const jobIds = plan.flatMap(({ jobs }) => jobs.map(({ jobId }) => jobId));
  const lying: Lying = dir === '' ? new Map() : await lyingIn(dir, jobIds);
  const rest = plan.map(({ batchId, jobs }) => ({ batchId, jobs: jobs.filter(({ jobId }) => !lying.has(jobId)) }));
  return { rest: rest.filter(({ jobs }) => jobs.length > 0), lying };
}

/** Hands over what the mesh has room for; the rest is for later. Rejects when there is none even for the first. */
export async function submitBatches(plan: readonly PlannedBatch[], options: CollectOptions): Promise<PlannedBatch[]> {
  const { jobs, settings, signal } = options;
  for (const [index, batch] of plan.entries()) {
    const requests = batch.jobs.map(({ jobId, request }) => ({ jobId, ...request }));
    try {
      await jobs.submitBatch(requests, { batchId: batch.batchId, ...settings, signal });
    } catch (thrown) {
      if (isOtherPart(thrown)) continue; // what is not in that is told as gone
      const isFull = thrown instanceof StatusError && thrown.code === Code.RESOURCE_EXHAUSTED;
      if (isFull && index > 0) return plan.slice(index);
      throw thrown;
    }
  }
  return [];
}

/**
 * Resolves when every job has ended and every picture there is lies in the folder. A mesh that goes away meanwhile is
 * asked again for two minutes.
 */
export async function collectBatches(plan: readonly PlannedBatch[], options: CollectOptions): Promise<Collected> {
  const { clock, dir, jobs, onProgress, signal } = options;
  await mkdir(dir, { recursive: true });
  const jobCount = countOf(plan);
  const { rest, lying } = await restOf(plan, dir);
  const collection = new Collection(options, lying);
  let unsent = await submitBatches(rest, options);
  const open = new Map(rest.filter((batch) => !unsent.includes(batch)).map((batch) => [batch.batchId, batch]));
  let [runningCount, etaMs] = [0, 0];
  const tell = (trouble?: StatusError) => {
    const { endedCount, fileCount } = collection;
    const progress = { jobCount, unsentCount: countOf(unsent), runningCount, endedCount, fileCount, etaMs };
    onProgress(trouble ? { ...progress, trouble } : progress);
  };
  const look = async () => {
    [runningCount, etaMs] = [0, 0];
    for (const batch of [...open.values()]) {
      const state = await jobs.getBatch(batch.batchId, { signal });
      runningCount += state.runningCount;
      etaMs = Math.max(etaMs, state.etaMs);
      const endedCount = endedCountOf(state);
      const isOver = endedCount >= state.jobCount;
      await collection.collect(batch, { isOver, endedCount });
      if (isOver) open.delete(batch.batchId);
    }
    tell();
    const before = unsent;
    if (unsent.length > 0) unsent = await submitLater(unsent, open.size > 0, options);
    for (const batch of before.slice(0, before.length - unsent.length)) open.set(batch.batchId, batch);
  };
  tell();
  for (let awaySince: number | undefined; ; ) {
    try {
      await look();
      awaySince = undefined;
    } catch (thrown) {
      if (!isAway(thrown)) throw thrown;
      awaySince ??= clock.now();
      if (clock.now() - awaySince >= PATIENCE_MS) throw thrown;
      tell(thrown);
    }
    if (open.size === 0 && unsent.length === 0) return collection.inOrderOf(plan);
    await clock.sleep(LOOK_EVERY_MS, signal);
  }
}

/** Whether it says nothing about the jobs: the mesh, or what it keeps them in, cannot be asked just now. */
export function isAway(thrown: unknown): thrown is StatusError {
  if (!(thrown instanceof StatusError)) return false;
  const { code, reason } = thrown;
  return code === Code.UNAVAILABLE || code === Code.DEADLINE_EXCEEDED || reason === Reason.STORE_UNAVAILABLE;
}

function countOf(plan: readonly PlannedBatch[]): number {
  return plan.reduce((sum, { jobs }) => sum + jobs.length, 0);
}

/** Whether the mesh has the batch with more of its jobs, or others: as somebody asked for it whose folder had less, or more. */
function isOtherPart(thrown: unknown): boolean {
  if (!(thrown instanceof StatusError) || thrown.reason !== Reason.JOB_DIFFERS) return false;
  // Of which jobs, not how they are to be drawn: the first field tells, of many the last are cut off.
  return /^items(\[\d+\](\.job_id)?)?(,|$)/.test(thrown.details.metadata?.fields ?? '');
}

/** While others run, a mesh without room is no failure: they make room. */
async function submitLater(unsent: PlannedBatch[], othersRun: boolean, options: CollectOptions): Promise<PlannedBatch[]> {
  try {
    return await submitBatches(unsent, options);
  } catch (thrown) {
    if (othersRun && thrown instanceof StatusError && thrown.code === Code.RESOURCE_EXHAUSTED) return unsent;
    throw thrown;
  }
}

class Collection implements Collected {
  readonly fetched: string[] = [];
  readonly replaced: string[] = [];
  readonly kept: string[] = [];
  readonly failed: { planned: PlannedJob; job: Job }[] = [];
  readonly gone: PlannedJob[] = [];
  readonly #options: CollectOptions;
  readonly #done = new Set<string>();
  readonly #endedCounts = new Map<string, number>();

  constructor(options: CollectOptions, lying: Lying) {
    this.#options = options;
    for (const [jobId, files] of lying) {
      this.kept.push(...files);
      this.#done.add(jobId);
    }
  }

  get endedCount(): number {
    return this.#done.size;
  }

  get fileCount(): number {
    return this.fetched.length + this.kept.length;
  }

  /** Fetches what is new; looks at nothing while nothing is. */
  async collect(batch: PlannedBatch, now: { isOver: boolean; endedCount: number }): Promise<void> {
    const { batchId } = batch;
    if (!now.isOver && now.endedCount === (this.#endedCounts.get(batchId) ?? 0)) return;
    const { jobs, signal } = this.#options;
    const planned = new Map(batch.jobs.map((job) => [job.jobId, job]));
    const found: { planned: PlannedJob; job: Job }[] = [];
    for await (const job of jobs.list({ batchId }, { signal })) {
      const known = planned.get(job.jobId);
      planned.delete(job.jobId);
      if (known && hasEnded(job) && !this.#done.has(job.jobId)) found.push({ planned: known, job });
    }
    const fetching = found.values();
    const fetchers = Array.from({ length: FETCH_COUNT }, async () => {
      for (const each of fetching) await this.#take(each);
    });
    // All of them have ended before one that failed is told: whoever comes back finds nothing half done.
    for (const outcome of await Promise.allSettled(fetchers)) if (outcome.status === 'rejected') throw outcome.reason;
    this.#endedCounts.set(batchId, now.endedCount);
    if (!now.isOver) return;
    for (const job of planned.values()) if (!this.#done.has(job.jobId)) this.gone.push(job);
  }

  /** As the file of prompts has them, whatever came first. */
  inOrderOf(plan: readonly PlannedBatch[]): this {
    const order = new Map(plan.flatMap(({ jobs }) => jobs).map(({ jobId }, index) => [jobId, index]));
    this.failed.sort((a, b) => (order.get(a.job.jobId) ?? 0) - (order.get(b.job.jobId) ?? 0));
    this.gone.sort((a, b) => (order.get(a.jobId) ?? 0) - (order.get(b.jobId) ?? 0));
    return this;
  }

  async #take({ planned, job }: { planned: PlannedJob; job: Job }): Promise<void> {
    if (job.state !== JobState.SUCCEEDED) {
      this.failed.push({ planned, job });
    } else {
      const images = job.result?.images ?? [];
      const files: { file: string; found: Found }[] = [];
      const noted: NotedFile[] = [];
      for (const [imageIndex, image] of images.entries()) {
        const ending = `${images.length > 1 ? `-${imageIndex + 1}` : ''}${extensionOf(image.mimeType)}`;
        const file = path.join(this.#options.dir, `${planned.name}${ending}`);
        const found = await lookAt(file, image.sha256);
        if (found !== 'as drawn') await this.#fetch(file, job.jobId, imageIndex);
        files.push({ file, found });
        noted.push({ name: path.basename(file), sha256: image.sha256 });
      }
      await noteFiles(this.#options.dir, job.jobId, noted);
      for (const { file, found } of files) {
        (found === 'as drawn' ? this.kept : this.fetched).push(file);
        if (found === 'another') this.replaced.push(file);
      }
    }
    this.#done.add(job.jobId);
  }

  async #fetch(file: string, jobId: string, imageIndex: number): Promise<void> {
    const { jobs, signal } = this.#options;
    const { data } = await jobs.download(jobId, { imageIndex, signal });
    // Under its name it is whole, whenever this is interrupted, and whoever else fetches it into the same folder.
    const part = path.join(this.#options.dir, `.${randomUUID()}.part`);
    try {
      await writeFile(part, data);
      await rename(part, file);
    } finally {
      await rm(part, { force: true });
    }
  }
}

function endedCountOf({ succeededCount, failedCount, cancelledCount, expiredCount }: Batch): number {
  return succeededCount + failedCount + cancelledCount + expiredCount;
}

type Found = 'as drawn' | 'another' | 'nothing';

async function lookAt(file: string, sha256: string): Promise<Found> {
  const digest = await digestOf(file);
  if (digest === undefined) return 'nothing'; // or not to be read: fetching says why not
  return digest === sha256 ? 'as drawn' : 'another';
}
