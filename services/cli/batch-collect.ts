/**
 * From planned jobs to files: what neither lies in the folder nor is known to the mesh is submitted, what is drawn is
 * fetched as it comes, and a file that has the right bytes already is left alone, or gets the name its line asks for.
 * Whatever stops it, the same plan goes on where it was, also when the mesh has forgotten the jobs.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type Batch, hasEnded, type Job, JobState, StatusError } from '#client';
import { Code, Reason } from '#core';
import type { PlannedJob } from './batch-plan.js';
import { type HandedOver, handOver, inParallel, type LostJob, lookUp, type SubmitOptions, submitJobs } from './batch-submit.js';
import { digestOf, type Lying, lyingIn, type NotedFile, noteFiles, olderIn, renameIn } from './folder-notes.js';
import { extensionOf } from './pictures.js';

export interface CollectOptions extends SubmitOptions {
  /** Where pictures go; made where it is missing. */
  readonly dir: string;
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
  /** Why the first one waits that waits for more than its turn. */
  readonly waitingFor?: Job['waitingFor'];
  /** Why the mesh does not answer just now; it is asked again. */
  readonly trouble?: StatusError;
}

export interface FailedJob {
  readonly planned: PlannedJob;
  readonly job: Job;
}

export interface Collected {
  /** Files fetched now … */
  readonly fetched: readonly string[];
  /** … of those, in place of another file … */
  readonly replaced: readonly string[];
  /** … and those that were there … */
  readonly kept: readonly string[];
  /** … of them, under another name. */
  readonly renamed: readonly string[];
  /** Jobs that ended without a picture. */
  readonly failed: readonly FailedJob[];
  /** Jobs that went while they were waited for, or that nobody can read. */
  readonly gone: readonly LostJob[];
  /** Files of lines that are in the file no more. */
  readonly older: readonly string[];
  /** Of which the jobs are whose pictures did not lie there. */
  readonly batchIds: readonly string[];
}

const LOOK_EVERY_MS = 500;
/** A mesh that is started anew, or a NATS that went, is back by then; who waits loses nothing by it. */
const PATIENCE_MS = 120_000;
/** Pictures fetched at a time. */
const FETCH_COUNT = 4;
/** Why the next one waits. */
const WHY_EVERY_MS = 2000;

/** Has the mesh keep what is still to be drawn, for whoever does not wait. `dir` '': nobody knows what lies there. */
export async function handOverRest(
  plan: readonly PlannedJob[],
  dir: string,
  options: SubmitOptions,
): Promise<HandedOver & { keptCount: number }> {
  const lying: Lying = dir === '' ? new Map() : await lyingIn(dir, idsOf(plan));
  const { known, lost, unsent } = await handOver(restOf(plan, lying), options);
  return { known: inOrderOf(plan, known), lost: inOrderOf(plan, lost), unsent, keptCount: lying.size };
}

/**
 * Resolves when every job has ended and every picture there is lies in the folder. A mesh that goes away meanwhile is
 * asked again for two minutes.
 */
export async function collectJobs(plan: readonly PlannedJob[], options: CollectOptions): Promise<Collected> {
  const { clock, dir, onProgress, signal } = options;
  await mkdir(dir, { recursive: true });
  const collection = new Collection(options);
  const rest = restOf(plan, await collection.arrange(plan));
  const open = new Map<string, readonly PlannedJob[]>();
  const batchIds = new Set<string>();
  let ready: FailedJob[] = [];
  let unsent: readonly PlannedJob[] = [];
  let [runningCount, etaMs, whyAt] = [0, 0, Number.NEGATIVE_INFINITY];
  let waitingFor: Job['waitingFor'];
  const tell = (trouble?: StatusError) => {
    const { endedCount, fileCount } = collection;
    const progress = { jobCount: plan.length, unsentCount: unsent.length, runningCount, endedCount, fileCount, etaMs };
    onProgress({ ...progress, ...(waitingFor ? { waitingFor } : {}), ...(trouble ? { trouble } : {}) });
  };
  const admit = (handed: HandedOver) => {
    collection.gone.push(...handed.lost);
    unsent = handed.unsent;
    for (const { planned, batchId, job } of handed.known) {
      batchIds.add(batchId);
      if (job && hasEnded(job)) ready.push({ planned, job });
      else open.set(batchId, [...(open.get(batchId) ?? []), planned]);
    }
  };
  const look = async () => {
    [runningCount, etaMs] = [0, 0];
    let next: PlannedJob | undefined;
    await collection.take(ready);
    ready = [];
    for (const [batchId, waiting] of open) {
      const state = await batchOf(batchId, options);
      runningCount += state.runningCount;
      etaMs = Math.max(etaMs, state.etaMs);
      const still = await collection.collect(waiting, state);
      if (state.queuedCount > 0) next ??= still[0];
      if (still.length > 0) open.set(batchId, still);
      else open.delete(batchId);
    }
    if (clock.now() - whyAt >= WHY_EVERY_MS) {
      whyAt = clock.now();
      waitingFor = next && (await lookUp([next], options)).known[0]?.job?.waitingFor;
    }
    tell();
    if (unsent.length > 0) admit(await submitJobs(unsent, options, { mayWait: open.size > 0, isLooked: true }));
  };

  admit(await handOver(rest, options));
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
    if (open.size + ready.length + unsent.length === 0) break;
    await clock.sleep(LOOK_EVERY_MS, signal);
  }
  const { fetched, replaced, kept, renamed, failed, gone } = collection;
  const ours = new Set([...fetched, ...kept]);
  const older = (await olderIn(dir, new Set(idsOf(plan)))).filter((file) => !ours.has(file));
  const inOrder = { failed: inOrderOf(plan, failed), gone: inOrderOf(plan, gone) };
  return { fetched, replaced, kept, renamed, ...inOrder, older, batchIds: [...batchIds] };
}

/** Whether it says nothing about the jobs: the mesh, or what it keeps them in, cannot be asked just now. */
export function isAway(thrown: unknown): thrown is StatusError {
  if (!(thrown instanceof StatusError)) return false;
  const { code, reason } = thrown;
  return code === Code.UNAVAILABLE || code === Code.DEADLINE_EXCEEDED || reason === Reason.STORE_UNAVAILABLE;
}

function idsOf(plan: readonly PlannedJob[]): string[] {
  return plan.map(({ jobId }) => jobId);
}

function restOf(plan: readonly PlannedJob[], lying: Pick<Lying, 'has'>): PlannedJob[] {
  return plan.filter(({ jobId }) => !lying.has(jobId));
}

/** As the file of prompts has them, whatever came first. */
function inOrderOf<T extends { readonly planned: PlannedJob }>(plan: readonly PlannedJob[], list: readonly T[]): T[] {
  const order = new Map(plan.map(({ jobId }, index) => [jobId, index]));
  return [...list].sort((a, b) => (order.get(a.planned.jobId) ?? 0) - (order.get(b.planned.jobId) ?? 0));
}

/** One that was forgotten has no jobs. */
async function batchOf(batchId: string, { jobs, signal }: SubmitOptions): Promise<Batch> {
  try {
    return await jobs.getBatch(batchId, { signal });
  } catch (thrown) {
    if (!(thrown instanceof StatusError) || thrown.reason !== Reason.UNKNOWN_JOB) throw thrown;
    const none = { queuedCount: 0, runningCount: 0, succeededCount: 0, failedCount: 0, cancelledCount: 0, expiredCount: 0 };
    return { batchId, submittedAtMs: 0n, jobCount: 0, etaMs: 0, ...none };
  }
}

class Collection {
  readonly fetched: string[] = [];
  readonly replaced: string[] = [];
  readonly kept: string[] = [];
  readonly renamed: string[] = [];
  readonly failed: FailedJob[] = [];
  readonly gone: LostJob[] = [];
  readonly #options: CollectOptions;
  readonly #done = new Set<string>();
  /** By batch, when its jobs were looked at last. */
  readonly #ended = new Map<string, string>();

  constructor(options: CollectOptions) {
    this.#options = options;
  }

  get endedCount(): number {
    return this.#done.size;
  }

  get fileCount(): number {
    return this.fetched.length + this.kept.length;
  }

  /** What lies in the folder whole is done, once it has the name of its line. */
  async arrange(plan: readonly PlannedJob[]): Promise<ReadonlySet<string>> {
    const { dir } = this.#options;
    const lying = await lyingIn(dir, idsOf(plan));
    const moves: { note: { jobId: string; files: readonly NotedFile[] }; names: string[] }[] = [];
    const kept = new Map<string, readonly string[]>();
    for (const planned of plan) {
      const files = lying.get(planned.jobId);
      if (!files) continue;
      const names = files.map(({ name }, index) => fileName(planned, path.extname(name), files.length > 1 ? index + 1 : 0));
      if (files.every(({ name }, index) => name === names[index])) kept.set(planned.jobId, names);
      else moves.push({ note: { jobId: planned.jobId, files }, names });
    }
    const { renamed, replaced } = await renameIn(dir, moves);
    for (const { jobId, files } of renamed) {
      const names = files.map(({ name }) => name);
      kept.set(jobId, names);
      this.renamed.push(...names.map((name) => path.join(dir, name)));
    }
    this.replaced.push(...replaced);
    for (const { jobId } of plan) {
      const names = kept.get(jobId);
      if (!names) continue;
      this.kept.push(...names.map((name) => path.join(dir, name)));
      this.#done.add(jobId);
    }
    return new Set(kept.keys());
  }

  /** Fetches what is new, and answers with what is still to come; looks at nothing while nothing is new. */
  async collect(waiting: readonly PlannedJob[], batch: Batch): Promise<readonly PlannedJob[]> {
    const { batchId, cancelledCount, expiredCount, failedCount, jobCount, succeededCount } = batch;
    const ended = [succeededCount, failedCount, cancelledCount, expiredCount];
    const isOver = ended.reduce((sum, count) => sum + count, 0) >= jobCount;
    const now = `${ended}`;
    if (!isOver && now === (this.#ended.get(batchId) ?? '0,0,0,0')) return waiting;
    const { jobs, signal } = this.#options;
    const open = new Map(waiting.map((job) => [job.jobId, job]));
    const found: FailedJob[] = [];
    for await (const job of jobs.list({ batchId }, { signal })) {
      const planned = open.get(job.jobId);
      if (planned && hasEnded(job)) found.push({ planned, job });
    }
    await this.take(found);
    this.#ended.set(batchId, now);
    const still = waiting.filter(({ jobId }) => !this.#done.has(jobId));
    if (!isOver || still.length === 0) return still;
    // All have ended, and these are none of them: deleted; or in motion, such as one that is run once more.
    const { known, unknown, damaged } = await lookUp(still, this.#options);
    this.gone.push(
      ...damaged,
      ...unknown.map((planned) => ({ planned, why: 'the mesh does not know it any more; this command again draws it again' })),
    );
    return known.map(({ planned }) => planned);
  }

  /** Of jobs that have ended. */
  async take(ended: readonly FailedJob[]): Promise<void> {
    await inParallel(ended, FETCH_COUNT, (each) => this.#take(each));
  }

  async #take({ planned, job }: FailedJob): Promise<void> {
    if (this.#done.has(job.jobId)) return;
    if (job.state !== JobState.SUCCEEDED) {
      this.failed.push({ planned, job });
    } else {
      const images = job.result?.images ?? [];
      const files: { file: string; found: Found }[] = [];
      const noted: NotedFile[] = [];
      for (const [imageIndex, image] of images.entries()) {
        const name = fileName(planned, extensionOf(image.mimeType), images.length > 1 ? imageIndex + 1 : 0);
        const file = path.join(this.#options.dir, name);
        const found = await lookAt(file, image.sha256);
        if (found !== 'as drawn') await this.#fetch(file, job.jobId, imageIndex);
        files.push({ file, found });
        noted.push({ name, sha256: image.sha256 });
      }
      await noteFiles(this.#options.dir, [{ jobId: job.jobId, files: noted }]);
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

/** `number`: of several pictures; 0: the only one. */
function fileName({ name }: PlannedJob, extension: string, number: number): string {
  return `${name}${number > 0 ? `-${number}` : ''}${extension}`;
}

type Found = 'as drawn' | 'another' | 'nothing';

async function lookAt(file: string, sha256: string): Promise<Found> {
  const digest = await digestOf(file);
  if (digest === undefined) return 'nothing'; // or not to be read: fetching says why not
  return digest === sha256 ? 'as drawn' : 'another';
}
