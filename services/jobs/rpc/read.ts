/** Get, List, GetBatch: what there is of a tenant's jobs. */
import { jobs } from '#contracts';
import { badRequest, type Violation } from '#core';
import type { HandlersOf } from '#grpc';
import type { StateKind } from '../domain/job.js';
import { isJobId, JOB_ID_RULE } from '../domain/record.js';
import { inParallel } from '../in-parallel.js';
import type { JobFilter } from '../index/seen-jobs.js';
import type { Place } from '../index/sorted-entries.js';
import { notReady, unlessDamaged } from '../refusals.js';
import type { StoredJob } from '../store/job-records.js';
import { batchMessage, isOf, jobMessage, listedMessage, stateKind } from './message.js';
import type { RpcParts } from './parts.js';

type Handlers = Pick<HandlersOf<typeof jobs.JobsServiceService>, 'get' | 'getBatch' | 'list'>;

const DEFAULT_PAGE_SIZE = 50;
const MAX_PAGE_SIZE = 1000;
/** Each of the six, and some twice; a request has room for millions, to look at which takes a minute. */
const MAX_STATES = 16;
/** Records read at a time for a page. */
const READS = 32;

export function readHandlers(parts: RpcParts): Handlers {
  const { callers, index, reader, records } = parts;
  return {
    get: async (call) => {
      const { tenant } = await callers.known(call);
      call.notes.job_id = call.request.jobId.slice(0, 64);
      const stored = await reader.job(tenant, call.request.jobId);
      const job = jobMessage(parts, stored);
      return { job: call.request.withUrls ? await withUrls(parts, stored, job) : job };
    },

    getBatch: async (call) => {
      const { tenant } = await callers.known(call);
      // Its figures are the index's: with a part of them it would seem over.
      if (records.state.kind !== 'following') throw notReady();
      const { batch } = await reader.batch(tenant, call.request.batchId);
      return { batch: batchMessage(parts, batch) };
    },

    list: async (call) => {
      const { tenant } = await callers.known(call);
      const { filter, pageSize, place } = readListRequest(call.request, tenant);
      if (!index.complete) throw notReady();
      if (filter.batchId !== '' && !index.batch(tenant, filter.batchId)) await reader.batch(tenant, filter.batchId);
      const entries = index.list(filter, pageSize + 1, place);
      const page = entries.slice(0, pageSize);
      const last = entries.length > pageSize ? page.at(-1) : undefined;
      const stored = await inParallel(page, READS, ({ jobId }) => records.readJob(tenant, jobId).catch(unlessDamaged));
      // The index may be a moment behind: what was deleted, or has another state by now, is not of this list.
      const found = stored.filter((one): one is StoredJob => one !== undefined && isOf(one.job, filter.states));
      const messages = found.map((one) => listedMessage(jobMessage(parts, one)));
      return { jobs: messages, nextPageToken: last ? pageToken(last) : '' };
    },
  };
}

/** Where the store has no such thing, or no such picture any more, there is none. */
async function withUrls({ blobs }: RpcParts, { job: { state } }: StoredJob, message: jobs.Job): Promise<jobs.Job> {
  if (state.kind !== 'succeeded' || !message.result) return message;
  const urls = await Promise.all(state.result.images.map(({ blob }) => blobs.link(blob)));
  const images = message.result.images.map((image, at) => ({ ...image, url: urls[at] ?? '' }));
  return { ...message, result: { ...message.result, images } };
}

function readListRequest(request: jobs.ListRequest, tenant: string): { filter: JobFilter; pageSize: number; place: Place | undefined } {
  const { batchId, pageSize, pageToken: token, submittedFromMs, submittedToMs } = request;
  const faults: Violation[] = [];
  if (pageSize > MAX_PAGE_SIZE) faults.push({ field: 'page_size', description: `expected at most ${MAX_PAGE_SIZE}, got ${pageSize}` });
  if (batchId !== '' && !isJobId(batchId)) faults.push({ field: 'batch_id', description: `expected ${JOB_ID_RULE}` });
  const place = token === '' ? undefined : readPageToken(token, tenant);
  if (token !== '' && !place) faults.push({ field: 'page_token', description: 'expected one from the page before' });
  const states = new Set<StateKind>();
  const stateCount = request.states.length;
  if (stateCount > MAX_STATES) faults.push({ field: 'states', description: `expected at most ${MAX_STATES}, got ${stateCount}` });
  for (const [at, state] of request.states.slice(0, MAX_STATES).entries()) {
    const kind = stateKind(state);
    if (kind) states.add(kind);
    else faults.push({ field: `states[${at}]`, description: `expected one of the states, got ${jobs.JobState[state] ?? state}` });
  }
  if (faults.length > 0) throw badRequest(faults);
  const to = submittedToMs === 0n ? Number.POSITIVE_INFINITY : Number(submittedToMs);
  const filter = { tenant, states, batchId, submittedFromMs: Number(submittedFromMs), submittedToMs: to };
  return { filter, pageSize: pageSize || DEFAULT_PAGE_SIZE, place };
}

/** The place of the last one told: new jobs come before it, so pages stay as they were. */
function pageToken({ jobId, submittedAtMs }: Place): string {
  return Buffer.from(`${submittedAtMs} ${jobId}`).toString('base64url');
}

function readPageToken(token: string, tenant: string): Place | undefined {
  const [, at = '', jobId = ''] = /^(\d{1,16}) ([A-Za-z0-9_-]{1,64})$/.exec(Buffer.from(token.slice(0, 256), 'base64url').toString()) ?? [];
  return jobId === '' ? undefined : { submittedAtMs: Number(at), jobId, tenant };
}
