/**
 * Cancel, Retry, Delete: each a compare and set on the record, at whatever replica. The one that runs the job sees it
 * within milliseconds, and stops.
 */
import type { jobs } from '#contracts';
import { badRequest } from '#core';
import type { HandlersOf } from '#grpc';
import { type Change, isEnded, type Job } from '../domain/job.js';
import { jobKey } from '../domain/record.js';
import { inParallel } from '../in-parallel.js';
import { isRecordDamaged, jobActive, jobEnded, notReady, unknownJob, unlessDamaged } from '../refusals.js';
import type { StoredJob } from '../store/job-records.js';
import { jobMessage } from './message.js';
import type { RpcParts } from './parts.js';

type Handlers = Pick<HandlersOf<typeof jobs.JobsServiceService>, 'cancel' | 'delete' | 'retry'>;

const WRITES = 32;

export function changeHandlers(parts: RpcParts): Handlers {
  const { blobs, bounds, callers, expireAfterMs, index, reader, records, wallNow } = parts;
  const message = (stored: StoredJob) => jobMessage(parts, stored);
  const cancelled = (job: Job): Change | undefined => (isEnded(job) ? undefined : { kind: 'cancelled', atMs: wallNow() });

  const cancelJob = async (tenant: string, jobId: string): Promise<jobs.CancelResponse> => {
    const from = await reader.job(tenant, jobId);
    const done = await records.changeJob(tenant, jobId, cancelled, from);
    if (done.kind === 'missing') throw unknownJob(jobId);
    if (done.kind === 'refused' && done.job.state.kind !== 'cancelled') throw jobEnded(jobId, done.job.state.kind);
    return { job: message(done), cancelledCount: done.kind === 'changed' ? 1 : 0 };
  };

  const cancelBatch = async (tenant: string, batchId: string): Promise<jobs.CancelResponse> => {
    const { batch } = await reader.batch(tenant, batchId);
    const done = await inParallel(batch.jobIds, WRITES, async (jobId) => {
      const entry = index.get(jobKey(tenant, jobId));
      if (entry && entry.endedAtMs > 0) return false;
      // Of a job that was deleted the id may be another's by now.
      const decide = (job: Job) => (job.batchId === batchId ? cancelled(job) : undefined);
      return (await records.changeJob(tenant, jobId, decide).catch(unlessDamaged))?.kind === 'changed';
    });
    return { job: undefined, cancelledCount: done.filter(Boolean).length };
  };

  const deleteJob = async (tenant: string, jobId: string): Promise<void> => {
    for (let from: StoredJob | undefined = await reader.job(tenant, jobId); from; from = await records.readJob(tenant, jobId)) {
      const ended = await records.changeJob(tenant, jobId, cancelled, from);
      if (ended.kind === 'missing') return;
      if (await records.removeJob(tenant, jobId, ended.revision)) return dropPictures(blobs, ended.job);
      // Changed meanwhile: as it is now.
    }
  };

  return {
    cancel: async (call) => {
      const { tenant } = await callers.known(call);
      const { which } = call.request;
      if (!which) throw badRequest([{ field: 'which', description: 'expected job_id or batch_id, got none' }]);
      call.notes[which.$case === 'jobId' ? 'job_id' : 'batch_id'] = which.value.slice(0, 64);
      return which.$case === 'jobId' ? cancelJob(tenant, which.value) : cancelBatch(tenant, which.value);
    },

    retry: async (call) => {
      const { tenant } = await callers.counted(call);
      const { jobId } = call.request;
      call.notes.job_id = jobId.slice(0, 64);
      const from = await reader.job(tenant, jobId);
      refuseRetry(from.job);
      if (!index.complete) throw notReady();
      return bounds.within(tenant, 1, async () => {
        const retried = (): Change => ({ kind: 'retried', expiresAtMs: wallNow() + expireAfterMs });
        const done = await records.changeJob(tenant, jobId, retried, from);
        if (done.kind === 'missing') throw unknownJob(jobId);
        if (done.kind === 'refused') refuseRetry(done.job);
        return { job: message(done) };
      });
    },

    delete: async (call) => {
      const { tenant } = await callers.known(call);
      const { jobId } = call.request;
      call.notes.job_id = jobId.slice(0, 64);
      try {
        await deleteJob(tenant, jobId);
      } catch (thrown) {
        // Nobody can say what it is: it goes, and its pictures, if it has any, are swept.
        if (!isRecordDamaged(thrown) || !(await records.removeDamagedJob(tenant, jobId))) throw thrown;
      }
      return {};
    },
  };
}

function refuseRetry({ jobId, state }: Job): void {
  if (state.kind === 'succeeded') throw jobEnded(jobId, state.kind);
  if (state.kind === 'queued' || state.kind === 'running') throw jobActive(jobId, state.kind);
}

/** The record is gone, and with it the job: a picture that cannot be removed now is swept later. */
async function dropPictures(blobs: RpcParts['blobs'], { state }: Job): Promise<void> {
  if (state.kind !== 'succeeded') return;
  await Promise.allSettled(state.result.images.map(({ blob }) => blobs.delete(blob)));
}
