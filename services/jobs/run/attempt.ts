/**
 * One try of one job, from the router's queue to the record of what became of it.
 *
 *   handed ── the router says that a node has begun ──► drawing ── picture complete ──► keeping ──► over
 *
 * Every step that others can see is one compare and set on the job's record, and `change` (domain/job.ts) says who
 * is too late: an attempt that lost stops at once, cancels its call and drops its pictures. Pictures are stored
 * before the record names them, under names of this attempt alone.
 *
 * While NATS is away the picture is drawn on and kept here; what is to be recorded waits. A write that was not
 * confirmed may have happened, so each is decided anew on the record as it is then.
 */
import { ImageAssembler, type MeshImage } from '#client';
import { type generation, PRIORITY_MESSAGES } from '#contracts';
import { type Clock, Code, type Emit, type Random, Reason, StatusError } from '#core';
import { blobName, sha256Of } from '../blobs/blob-name.js';
import type { Blobs } from '../blobs/blobs.js';
import { type RetrySettings, retryDelayMs, type Scope, type Verdict, verdictOf } from '../domain/failures.js';
import type { Change, Failure, Job, Result, StoredImage } from '../domain/job.js';
import type { JobsEvent } from '../events.js';
import type { JobEntry } from '../index/job-entry.js';
import type { Changed, JobRecords, StoredJob } from '../store/job-records.js';
import type { DrawOptions } from './routers.js';

/** Where a test of crashes can have the process stand still; see `AttemptOptions.reached`. */
export type Step = 'created' | 'handed' | 'drawing' | 'begun' | 'drawn' | 'blobStored' | 'recorded';

export interface AttemptListener {
  /** It waits in the router's queue. Perhaps told more than once. */
  readonly onQueued: () => void;
  /** It has gone on to its next phase. */
  readonly onPhase: () => void;
}

export interface AttemptOptions extends AttemptListener {
  readonly clock: Clock;
  readonly wallNow: () => number;
  readonly random: Random;
  readonly emit: Emit<JobsEvent>;
  readonly records: Pick<JobRecords, 'changeJob' | 'jobAsTold' | 'readJob'>;
  readonly pictures: Pick<Blobs, 'put' | 'delete'>;
  readonly routers: { draw(request: generation.GenerateRequest, options: DrawOptions): AsyncIterable<generation.GenerateEvent> };
  /** This life of this replica, as records name it. */
  readonly worker: string;
  readonly retry: RetrySettings;
  /** Resolves when NATS is worth another try. */
  readonly whenLinked: (signal: AbortSignal) => Promise<void>;
  /** Passes at once, but in tests of crashes. */
  readonly reached: (step: Step, jobId: string) => Promise<void>;
}

export type AttemptEnd =
  /** Its record says what became of it, or will. `executingMs` 0: it was not drawn. */
  | { readonly kind: 'over'; readonly executingMs: number }
  /** Turned away before a node began: it waits as before. */
  | { readonly kind: 'turnedAway'; readonly scope: Scope; readonly leastMs: number | undefined; readonly failure: Failure };

/** No call is open for longer; a job that waits longer is handed over anew. */
const MAX_CALL_MS = 3_600_000;
const RECORD_RETRY_MS = 250;
const MAX_RECORD_RETRY_MS = 5000;
/** A job is in the mesh's hands again this long after it was lost with a router. */
const AGAIN_MS = 250;
const MAX_AGAIN_MS = 30_000;

interface Drawn {
  readonly images: readonly MeshImage[];
  readonly completed: generation.Completed;
}

export class Attempt {
  readonly entry: JobEntry;
  readonly #options: AttemptOptions;
  /** Ends the call to the router. */
  readonly #stopped = new AbortController();
  /** Ends the waiting for NATS as well: this process leaves. */
  readonly #left = new AbortController();
  #phase: 'handed' | 'drawing' | 'keeping' = 'handed';
  /** Of the job that was read: its id may be another's by now. */
  #uid = '';
  /** As it was told, read or written last: saves reading it before each change. */
  #known: StoredJob | undefined;
  /** The number of this attempt, once its record says that it began. */
  #number: number | undefined;
  #nodeId = '';
  /** At the router, for whoever reads both logs. */
  #requestId = '';
  /** Recordings of `begun`, one after the other; undefined: lost. */
  #begun: Promise<StoredJob | undefined> = Promise.resolve(undefined);
  readonly ended: Promise<AttemptEnd>;

  constructor(entry: JobEntry, options: AttemptOptions) {
    this.entry = entry;
    this.#options = options;
    this.ended = this.#run();
  }

  get phase(): 'handed' | 'drawing' | 'keeping' {
    return this.#phase;
  }

  /** Its record says that it runs here. */
  get begun(): boolean {
    return this.#number !== undefined;
  }

  /** Nobody wants it any more, or it is another's now. */
  stop(): void {
    this.#stopped.abort(new Lost());
  }

  /** The process ends: what a node draws is set back at once, for others. */
  async leave(): Promise<void> {
    this.#stopped.abort(new Lost());
    this.#left.abort(new Lost());
    const number = this.#number;
    if (number === undefined) return;
    const { tenant, jobId } = this.entry;
    await this.#options.records
      .changeJob(tenant, jobId, (job) => (this.#isOurs(job, number) ? { kind: 'setBack', counted: false, notBeforeMs: 0 } : undefined))
      .catch(() => {}); // NATS is away: the others take it back once they miss us
  }

  async #run(): Promise<AttemptEnd> {
    const { emit, records, reached } = this.#options;
    const { tenant, jobId } = this.entry;
    let job: Job | undefined;
    try {
      await reached('handed', jobId);
      this.#known = records.jobAsTold(tenant, jobId) ?? (await records.readJob(tenant, jobId));
      job = this.#known?.job;
      if (job?.state.kind !== 'queued' || this.#stopped.signal.aborted) return OVER;
      this.#uid = job.uid;
      const drawn = await this.#draw(job);
      await reached('drawn', jobId);
      return await this.#keep(drawn);
    } catch (thrown) {
      if (thrown instanceof Lost || this.#stopped.signal.aborted) return OVER;
      const error = StatusError.from(thrown);
      // The record could not be read: nothing was tried. Without NATS that is so for all of them.
      if (!job) return { kind: 'turnedAway', scope: isPassing(error) ? 'all' : 'job', leastMs: undefined, failure: failureOf(error) };
      return this.#failed(job, error).catch((fault: unknown): AttemptEnd => {
        if (fault instanceof Lost) return OVER;
        emit({ type: 'attemptLost', tenant, jobId, error: fault });
        return { kind: 'turnedAway', scope: 'job', leastMs: undefined, failure: failureOf(error) };
      });
    }
  }

  /** Resolves with the whole picture and its record begun. */
  async #draw(job: Job): Promise<Drawn> {
    const { clock, emit, routers, wallNow } = this.#options;
    const { tenant, jobId } = job;
    this.#requestId = `job:${jobId}:${job.attempt + 1}`;
    const request: generation.GenerateRequest = {
      ...job.request,
      requestId: this.#requestId,
      priority: PRIORITY_MESSAGES[job.priority],
    };
    const deadlineAt = clock.now() + Math.min(MAX_CALL_MS, Math.max(1, job.expiresAtMs - wallNow()));
    const assembler = new ImageAssembler();
    for await (const { event } of routers.draw(request, { tenant, routeKey: job.uid, deadlineAt, signal: this.#stopped.signal })) {
      switch (event?.$case) {
        case 'queued':
          this.#options.onQueued();
          emit({ type: 'jobWaits', tenant, jobId, position: event.value.position, etaMs: event.value.etaMs });
          break;
        case 'started':
          assembler.started(event.value.attempt);
          this.#start(event.value.nodeId);
          break;
        case 'step':
          this.#tellStep(event.value);
          break;
        case 'image':
          assembler.add(event.value);
          break;
        case 'completed': {
          const images = assembler.finish(event.value.imageCount);
          this.#become('keeping');
          return { images, completed: event.value };
        }
        default: // accepted; or what a newer mesh may say
      }
    }
    throw badStream('the stream ended before its last event');
  }

  /** A node has begun; again when the mesh has moved it to another. Drawing does not wait for the record. */
  #start(nodeId: string): void {
    if (nodeId === this.#nodeId) return;
    this.#nodeId = nodeId;
    this.#become('drawing');
    const { reached, wallNow, worker } = this.#options;
    const atMs = wallNow();
    const isFirst = this.#number === undefined;
    const record = async (before: StoredJob | undefined): Promise<StoredJob | undefined> => {
      if (!isFirst && !before) return undefined;
      await reached('drawing', this.entry.jobId);
      const begun = await this.#recorded(({ uid }) => (uid === this.#uid ? { kind: 'begun', worker, nodeId, atMs } : undefined));
      if (begun.kind !== 'changed') throw new Lost();
      this.#number = begun.job.attempt;
      await reached('begun', this.entry.jobId);
      return begun;
    };
    this.#begun = this.#begun.then(record).catch(() => {
      this.#stopped.abort(new Lost());
      return undefined;
    });
  }

  #tellStep({ step, total }: generation.Step): void {
    const { tenant, jobId } = this.entry;
    const attempt = this.#number;
    if (attempt !== undefined)
      this.#options.emit({ type: 'jobStepped', tenant, jobId, attempt, nodeId: this.#nodeId, step, totalSteps: total });
  }

  /** Pictures first, then the record that names them. */
  async #keep({ images, completed }: Drawn): Promise<AttemptEnd> {
    const { pictures, reached, wallNow, worker } = this.#options;
    const { tenant, jobId } = this.entry;
    const begun = await this.#begun;
    if (!begun) throw new Lost();
    const { executingMs, used } = completed;
    if (!used) throw badStream('expected used parameters with the picture, got none');
    const { attempt, uid } = begun.job;
    const stored: StoredImage[] = [];
    for (const [imageIndex, { data, mimeType, width, height, seed }] of images.entries()) {
      const sha256 = sha256Of(data);
      const blob = blobName({ tenant, jobId, uid, attempt, imageIndex, sha256, mimeType });
      stored.push({ blob, mimeType, width, height, seed, sizeBytes: data.byteLength, sha256 });
    }
    const drop = async () => {
      for (const { blob } of stored) await pictures.delete(blob).catch(() => {}); // what stays is swept
    };
    try {
      for (const [index, { blob }] of stored.entries()) await this.#stored(blob, images[index]?.data ?? new Uint8Array());
    } catch (thrown) {
      await drop();
      throw thrown;
    }
    await reached('blobStored', jobId);
    const result: Result = { images: stored, used, executingMs };
    const atMs = wallNow();
    const outcome = await this.#recorded((job) =>
      this.#isOurs(job, attempt) ? { kind: 'succeeded', worker, attempt, atMs, result } : undefined,
    );
    // Refused may mean that we wrote it ourselves and did not hear of it.
    const isKept = outcome.kind === 'changed' || (outcome.kind === 'refused' && names(outcome.job, stored));
    if (!isKept) await drop();
    else await reached('recorded', jobId);
    this.#tellEnd(isKept ? 'succeeded' : 'lost', isKept ? { reason: 'OK', message: '' } : LATE);
    return { kind: 'over', executingMs };
  }

  /** Until there is room and the store answers: the picture has cost a GPU's time. Rejects when nobody wants it any more. */
  async #stored(blob: string, data: Uint8Array): Promise<void> {
    const { clock, emit, pictures } = this.#options;
    const { tenant, jobId } = this.entry;
    for (let delayMs = RECORD_RETRY_MS; ; delayMs = Math.min(MAX_RECORD_RETRY_MS, 2 * delayMs)) {
      try {
        return await pictures.put(blob, data);
      } catch (error) {
        const { reason } = StatusError.from(error);
        if (reason !== Reason.STORE_FULL && reason !== Reason.STORE_UNAVAILABLE) throw error;
        emit({ type: 'recordingDelayed', tenant, jobId, again: delayMs > RECORD_RETRY_MS, error });
      }
      await clock.sleep(delayMs, this.#stopped.signal);
    }
  }

  /** What the failure means for the job is recorded, where it means anything beyond going on waiting. */
  async #failed(job: Job, error: StatusError): Promise<AttemptEnd> {
    const { random, retry, wallNow } = this.#options;
    await this.#begun;
    const number = this.#number;
    const nowMs = wallNow();
    // A drawing that takes longer than any call may would begin anew for ever.
    const isEndless = number !== undefined && error.reason === Reason.DEADLINE && nowMs < job.expiresAtMs;
    const verdict: Verdict = isEndless ? { kind: 'counted' } : verdictOf(error);
    const failure = failureOf(error);
    if (verdict.kind === 'waits' && number === undefined) {
      this.#tellEnd('waits', error);
      return { kind: 'turnedAway', scope: verdict.scope, leastMs: error.details.retryDelayMs, failure };
    }
    const decide = (now: Job): Change | undefined => {
      const isThis = number === undefined ? isSame(now, job) : this.#isOurs(now, number);
      if (!isThis) return undefined;
      if (verdict.kind === 'final') return { kind: 'failed', failure, atMs: nowMs };
      if (verdict.kind === 'waits') {
        const againMs = Math.min(MAX_AGAIN_MS, AGAIN_MS * 2 ** Math.min(now.attempt - 1, 20)) * (1 + random());
        return { kind: 'setBack', failure, counted: false, notBeforeMs: Math.round(nowMs + againMs) };
      }
      const delayMs = retryDelayMs(now.failedAttempts + 1, retry, random);
      if (delayMs === undefined) return { kind: 'failed', failure, atMs: nowMs };
      return { kind: 'setBack', failure, counted: true, notBeforeMs: Math.round(nowMs + delayMs) };
    };
    const outcome = await this.#recorded(decide);
    if (outcome.kind === 'changed') this.#tellEnd(outcome.job.state.kind === 'failed' ? 'failed' : 'again', error);
    else this.#tellEnd('lost', LATE);
    return OVER;
  }

  /** Until NATS has taken it or refused. Throws Lost when this process leaves before. */
  async #recorded(decide: (job: Job) => Change | undefined): Promise<Changed> {
    const { clock, emit, records, whenLinked } = this.#options;
    const { tenant, jobId } = this.entry;
    for (let delayMs = RECORD_RETRY_MS; ; delayMs = Math.min(MAX_RECORD_RETRY_MS, 2 * delayMs)) {
      try {
        const outcome = await records.changeJob(tenant, jobId, decide, this.#known);
        if (outcome.kind !== 'missing') this.#known = outcome;
        return outcome;
      } catch (error) {
        this.#known = undefined; // it may have been written
        emit({ type: 'recordingDelayed', tenant, jobId, again: delayMs > RECORD_RETRY_MS, error });
        if (!isPassing(error)) throw error;
      }
      try {
        await clock.sleep(delayMs, this.#left.signal);
        await whenLinked(this.#left.signal);
      } catch {
        throw new Lost();
      }
    }
  }

  #tellEnd(
    outcome: Extract<JobsEvent, { type: 'attemptEnded' }>['outcome'],
    { reason, message }: { reason: string; message: string },
  ): void {
    const { tenant, jobId } = this.entry;
    this.#options.emit({ type: 'attemptEnded', tenant, jobId, requestId: this.#requestId, outcome, reason, detail: message });
  }

  #become(phase: 'drawing' | 'keeping'): void {
    this.#phase = phase;
    this.#options.onPhase();
  }

  #isOurs({ attempt, state, uid }: Job, number: number): boolean {
    return uid === this.#uid && state.kind === 'running' && state.worker === this.#options.worker && attempt === number;
  }
}

const LATE = { reason: 'LATE', message: 'the job has moved on meanwhile' };
const OVER: AttemptEnd = { kind: 'over', executingMs: 0 };

/** It is another's, or nobody's any more. */
class Lost extends Error {
  override readonly name = 'Lost';
}

function failureOf({ code, message, reason }: StatusError): Failure {
  return { code, reason, message };
}

/** Still waiting as it was: no attempt and no failure since. */
function isSame(now: Job, before: Job): boolean {
  const { attempt, failedAttempts, round, uid } = before;
  const isAsBefore = now.uid === uid && now.round === round && now.attempt === attempt && now.failedAttempts === failedAttempts;
  return isAsBefore && now.state.kind === 'queued';
}

function names({ state }: Job, stored: readonly StoredImage[]): boolean {
  return state.kind === 'succeeded' && state.result.images.every(({ blob }, index) => blob === stored[index]?.blob);
}

/** NATS is away, slow or full, and will not stay so. */
function isPassing(thrown: unknown): boolean {
  const { code, reason } = StatusError.from(thrown);
  if (reason === Reason.STORE_FULL) return true;
  return code === Code.UNAVAILABLE || code === Code.DEADLINE_EXCEEDED || code === Code.FAILED_PRECONDITION || code === Code.ABORTED;
}

function badStream(message: string): StatusError {
  return new StatusError({ code: Code.DATA_LOSS, reason: Reason.BAD_STREAM, message });
}
