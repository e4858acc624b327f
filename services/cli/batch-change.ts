/** A verb for a batch that the mesh knows for single jobs alone: one call for each job it is for, and what came of them. */
import { Code, type Job, type JobsClient, StatusError } from '#client';
import { Reason } from '#core';

export interface BatchChange {
  readonly client: JobsClient;
  readonly batchId: string;
  readonly isFor: (job: Job) => boolean;
  readonly change: (jobId: string) => Promise<unknown>;
  readonly signal: AbortSignal;
}

export interface BatchChanged {
  /** All the batch has. */
  readonly jobCount: number;
  readonly changedCount: number;
  readonly refused: readonly { readonly jobId: string; readonly reason: string; readonly message: string }[];
}

/** Goes on past what holds for one job; rejects with what would hold for the next one, too. */
export async function changeBatch({ client, batchId, isFor, change, signal }: BatchChange): Promise<BatchChanged> {
  const all: Job[] = [];
  for await (const job of client.list({ batchId }, { signal })) all.push(job);
  const refused: { jobId: string; reason: string; message: string }[] = [];
  let changedCount = 0;
  // The list has the newest first.
  for (const { jobId } of all.filter(isFor).reverse()) {
    try {
      await change(jobId);
      changedCount++;
    } catch (thrown) {
      if (!isOfOneJob(thrown)) throw thrown;
      refused.push({ jobId, reason: thrown.reason, message: thrown.message });
    }
  }
  return { jobCount: all.length, changedCount, refused };
}

/** Somebody else was first, or its record is damaged. */
function isOfOneJob(thrown: unknown): thrown is StatusError {
  if (!(thrown instanceof StatusError) || thrown.reason === Reason.STORE_UNAVAILABLE) return false;
  return [Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.DATA_LOSS].some((code) => code === thrown.code);
}
