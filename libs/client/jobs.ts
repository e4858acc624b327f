/**
 * Submit now, collect later. Every job gets an id here when it has none, so that a call that is repeated is
 * the same job; a seed that is absent stays so, and the mesh fixes it once; what breaks on the way (a watch, a download) goes on where it was.
 */
import { createHash } from 'node:crypto';
import { type generation, jobs } from '#contracts';
import { Code, type Random, Reason, StatusError } from '#core';
import type { Method } from '#grpc';
import { type Caller, type CallSettings, type ClientCall, guarded, OTHER_TIMEOUT_MS, PICTURE_TIMEOUT_MS } from './caller.js';
import { madeUpId, type PictureRequest, wireRequest } from './request.js';
import type { Batch, Job, JobState } from './types.js';

export interface JobSettings {
  /** Ends as EXPIRED when not drawn so long after it was submitted; default the service's. */
  readonly expireAfterMs?: number | undefined;
  /** Is told when the job has ended (standardwebhooks.com). */
  readonly webhookUrl?: string | undefined;
}

export interface SubmittedJob {
  readonly job: Job;
  /** False: it was there already. */
  readonly created: boolean;
}

export interface SubmittedBatch {
  readonly batch: Batch;
  /** In the order of the requests. */
  readonly jobIds: readonly string[];
  /** False: it was there already. */
  readonly created: boolean;
}

export interface JobFilter {
  /** Any of these; absent: all. */
  readonly states?: readonly JobState[] | undefined;
  readonly batchId?: string | undefined;
  /** Milliseconds since 1970: submitted at or after … */
  readonly submittedFromMs?: number | undefined;
  /** … and before. */
  readonly submittedToMs?: number | undefined;
}

export interface StoredPicture {
  /** A complete file of `mimeType`; its digest was checked. */
  readonly data: Uint8Array;
  readonly mimeType: string;
  /** In hex. */
  readonly sha256: string;
}

const Jobs = jobs.JobsServiceService;
const { JobState: State } = jobs;
const ENDED: ReadonlySet<JobState> = new Set([State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED]);
const PAGE_SIZE = 200;
/** As the largest answer a channel takes; a peer's number alone must not reserve more. */
const MAX_PICTURE_BYTES = 64 * 1024 * 1024;
/** Whoever is asked, and however often, the mesh is the same after it. */
const REPEATABLE = { repeatable: true } as const;

export function hasEnded(job: Pick<Job, 'state'>): boolean {
  return ENDED.has(job.state);
}

/** Calls reject with a StatusError (exported as MeshError) whose `reason` says why. */
export class JobsClient {
  constructor(private readonly caller: Caller) {}

  /** Resolves when the job is on disk. The same id with the same request again is the same job. Class low unless it says otherwise. */
  async submit(request: PictureRequest, options: JobSettings & CallSettings & { readonly jobId?: string } = {}): Promise<SubmittedJob> {
    const { random } = this.caller;
    const message = {
      jobId: options.jobId ?? madeUpId('j', random),
      request: jobRequest(request, random),
      options: wireOptions(options),
    };
    const call = this.caller.call(options, OTHER_TIMEOUT_MS);
    const { job, created } = await this.#ask(Jobs.submit, message, call, REPEATABLE);
    return { job: expected(job), created };
  }

  /** All of them or none. Jobs without an id are called after the batch, with their index. */
  async submitBatch(
    requests: readonly (PictureRequest & { readonly jobId?: string })[],
    options: JobSettings & CallSettings & { readonly batchId?: string } = {},
  ): Promise<SubmittedBatch> {
    const { random } = this.caller;
    const message = {
      batchId: options.batchId ?? madeUpId('b', random),
      items: requests.map(({ jobId = '', ...request }) => ({ jobId, request: jobRequest(request, random) })),
      options: wireOptions(options),
    };
    const call = this.caller.call(options, PICTURE_TIMEOUT_MS);
    const { batch, jobIds, created } = await this.#ask(Jobs.submitBatch, message, call, REPEATABLE);
    return { batch: expected(batch), jobIds, created };
  }

  /** `withUrls`: links to fetch pictures without the mesh, where its store can make them. */
  async get(jobId: string, options: CallSettings & { readonly withUrls?: boolean } = {}): Promise<Job> {
    const call = this.caller.call(options, OTHER_TIMEOUT_MS);
    return expected((await this.#ask(Jobs.get, { jobId, withUrls: options.withUrls ?? false }, call, REPEATABLE)).job);
  }

  /** How far a batch is. */
  async getBatch(batchId: string, options: CallSettings = {}): Promise<Batch> {
    const call = this.caller.call(options, OTHER_TIMEOUT_MS);
    return expected((await this.#ask(Jobs.getBatch, { batchId }, call, REPEATABLE)).batch);
  }

  /** Newest first, page after page as they are read. Without `request`. The timeout is that of a page. */
  async *list(filter: JobFilter = {}, options: CallSettings = {}): AsyncGenerator<Job, void> {
    const { states = [], batchId = '', submittedFromMs = 0, submittedToMs = 0 } = filter;
    const times = { submittedFromMs: BigInt(submittedFromMs), submittedToMs: BigInt(submittedToMs) };
    let pageToken = '';
    do {
      const message = { pageSize: PAGE_SIZE, pageToken, states: [...states], batchId, ...times };
      const page = await this.#ask(Jobs.list, message, this.caller.call(options, OTHER_TIMEOUT_MS), REPEATABLE);
      yield* page.jobs;
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
  }

  /** The job as it is and again at every change, until it has ended. Goes on where it was when the connection breaks. */
  async *watch(jobId: string, options: CallSettings & { readonly fromRevision?: bigint } = {}): AsyncGenerator<Job, void> {
    const call = this.caller.call(options, Number.POSITIVE_INFINITY);
    let fromRevision = options.fromRevision ?? 0n;
    for (let attempt = 1; ; attempt++) {
      try {
        for await (const { job } of this.caller.channel.serverStream(Jobs.watch, { jobId, fromRevision }, call)) {
          if (!job) continue;
          this.caller.answered();
          attempt = 1;
          fromRevision = job.revision;
          yield job;
        }
        return;
      } catch (thrown) {
        await this.caller.waitToRepeat(thrown, attempt, call, REPEATABLE);
      }
    }
  }

  /** Resolves with the job once it has ended, however it ended. */
  async waitFor(jobId: string, options: CallSettings = {}): Promise<Job> {
    let last: Job | undefined;
    for await (const job of this.watch(jobId, options)) last = job;
    if (last && hasEnded(last)) return last;
    throw badStream(`expected to hear of job ${jobId} until it has ended, the stream ended before`);
  }

  /** In any state; the GPU is free within one step. */
  async cancel(jobId: string, options: CallSettings = {}): Promise<Job> {
    const call = this.caller.call(options, OTHER_TIMEOUT_MS);
    return expected((await this.#ask(Jobs.cancel, { which: { $case: 'jobId', value: jobId } }, call, REPEATABLE)).job);
  }

  /** All of a batch that have not ended; resolves with how many were cancelled. */
  async cancelBatch(batchId: string, options: CallSettings = {}): Promise<number> {
    const call = this.caller.call(options, PICTURE_TIMEOUT_MS);
    return (await this.#ask(Jobs.cancel, { which: { $case: 'batchId', value: batchId } }, call, REPEATABLE)).cancelledCount;
  }

  /** Runs a job that failed, expired or was cancelled once more. */
  async retry(jobId: string, options: CallSettings = {}): Promise<Job> {
    return expected((await this.#ask(Jobs.retry, { jobId }, this.caller.call(options, OTHER_TIMEOUT_MS))).job);
  }

  /** Forgets the job and its pictures; one that runs is cancelled first. */
  async delete(jobId: string, options: CallSettings = {}): Promise<void> {
    await this.#ask(Jobs.delete, { jobId }, this.caller.call(options, OTHER_TIMEOUT_MS));
  }

  /** A picture of a job that has succeeded. Goes on where it was when the connection breaks. */
  async download(
    jobId: string,
    options: CallSettings & {
      readonly imageIndex?: number;
      readonly onProgress?: (progress: { readonly receivedBytes: number; readonly totalBytes: number }) => void;
    } = {},
  ): Promise<StoredPicture> {
    const call = this.caller.call(options, PICTURE_TIMEOUT_MS);
    const onProgress = options.onProgress && guarded(options.onProgress);
    const file = new StoredFile(jobId);
    for (let attempt = 1; ; attempt++) {
      const request = { jobId, imageIndex: options.imageIndex ?? 0, offset: BigInt(file.receivedBytes) };
      try {
        for await (const piece of this.caller.channel.serverStream(Jobs.download, request, call)) {
          this.caller.answered();
          attempt = 1;
          file.add(piece);
          onProgress?.({ receivedBytes: file.receivedBytes, totalBytes: file.totalBytes });
        }
        return file.finish();
      } catch (thrown) {
        await this.caller.waitToRepeat(thrown, attempt, call, REPEATABLE);
      }
    }
  }

  #ask<Req, Res>(method: Method<Req, Res>, request: Req, call: ClientCall, options: { readonly repeatable?: boolean } = {}): Promise<Res> {
    const send = async () => (await this.caller.channel.unary(method, request, call)).response;
    return this.caller.withRetries(call, send, options);
  }
}

/** A file as its pieces come, in order and without a hole. */
class StoredFile {
  #data: Uint8Array | undefined;
  #mimeType = '';
  #sha256 = '';
  receivedBytes = 0;

  constructor(private readonly jobId: string) {}

  get totalBytes(): number {
    return this.#data?.length ?? 0;
  }

  add(piece: jobs.DownloadResponse): void {
    const total = Number(piece.totalBytes);
    if (total <= 0 || total > MAX_PICTURE_BYTES) throw badStream(`expected a picture of 1 to ${MAX_PICTURE_BYTES} bytes, got ${total}`);
    this.#data ??= new Uint8Array(total);
    if (total !== this.#data.length) throw badStream(`expected the picture to stay at ${this.#data.length} bytes, got ${total}`);
    if (Number(piece.offset) !== this.receivedBytes) {
      throw badStream(`expected the picture to go on at byte ${this.receivedBytes}, got a piece for byte ${piece.offset}`);
    }
    if (this.receivedBytes + piece.data.length > total) {
      throw badStream(`expected the picture to end at byte ${total}, got ${this.receivedBytes + piece.data.length}`);
    }
    this.#data.set(piece.data, this.receivedBytes);
    this.receivedBytes += piece.data.length;
    this.#mimeType = piece.mimeType;
    this.#sha256 = piece.sha256;
  }

  finish(): StoredPicture {
    const data = this.#data;
    if (!data || this.receivedBytes < data.length) {
      throw badStream(`expected all of the picture of job ${this.jobId}, got ${this.receivedBytes} of ${data?.length ?? 'unknown'} bytes`);
    }
    const sha256 = createHash('sha256').update(data).digest('hex');
    if (sha256 === this.#sha256) return { data, mimeType: this.#mimeType, sha256 };
    throw new StatusError({
      code: Code.DATA_LOSS,
      reason: Reason.RESULT_DAMAGED,
      message: `expected a picture of job ${this.jobId} with the digest ${this.#sha256}, got ${sha256}`,
    });
  }
}

/** Without a seed of its own whoever submits it again, from whatever program, says the same. */
function jobRequest(request: PictureRequest, random: Random): generation.GenerateRequest {
  const wire = wireRequest(request, random);
  return { ...wire, requestId: '', seed: request.seed === undefined ? undefined : wire.seed };
}

function wireOptions({ expireAfterMs, webhookUrl = '' }: JobSettings): jobs.JobOptions {
  return { expireAfterMs: expireAfterMs === undefined ? undefined : BigInt(expireAfterMs), webhookUrl };
}

function expected<T>(value: T | undefined): T {
  if (value === undefined) throw badStream('expected an answer with what it is about, got one without');
  return value;
}

function badStream(message: string): StatusError {
  return new StatusError({ code: Code.DATA_LOSS, reason: Reason.BAD_STREAM, message });
}
