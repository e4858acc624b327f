/**
 * Callers who submit jobs while the mesh is being killed, and do not give up: the same id again until it is accepted,
 * at whichever router answers, then watch until it has ended. What each of them was told is kept.
 */
import { setMaxListeners } from 'node:events';
import { connectMesh, hasEnded, JobState, type MeshClient, MeshError } from '#client';
import { Code, type Random } from '#core';
import { systemClock } from '#runtime';
import type { Asked } from '../support/picture-oracle.js';

export interface SubmittedJob {
  readonly jobId: string;
  readonly asked: Asked;
  accepted: boolean;
  /** Every revision in which it was seen to have succeeded, by anybody; more than one is one too many. */
  readonly successes: Set<string>;
}

export interface ClientsOptions {
  /** host:port of the routers. */
  readonly addresses: readonly string[];
  readonly jobIds: readonly string[];
  /** All are submitted within this. */
  readonly withinMs: number;
  readonly random: Random;
  /** Nobody waits any longer. */
  readonly signal: AbortSignal;
  readonly onComplaint: (message: string) => void;
}

const SIDE_PX = 64;
const SUBMIT_TIMEOUT_MS = 5000;
const PAUSE_MS = 200;
/** The mesh is away or busy with itself; everything else is an answer. */
const PASSING: ReadonlySet<number> = new Set([Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED]);

/** `accepted` when each is, or the signal came; `ended` likewise, once each has ended. */
export function submitAll(options: ClientsOptions): {
  readonly jobs: readonly SubmittedJob[];
  readonly accepted: Promise<unknown>;
  readonly ended: Promise<unknown>;
} {
  const { addresses, jobIds, random, signal, withinMs } = options;
  const clients = addresses.map((address) => connectMesh({ address }));
  const inTurn = (turn: number): MeshClient => {
    const client = clients[turn % clients.length];
    if (!client) throw new Error('expected a router to submit to');
    return client;
  };
  const jobs = jobIds.map((jobId, index): SubmittedJob => {
    const asked = { prompt: `picture of ${jobId}`, seed: index, width: SIDE_PX, height: SIDE_PX };
    return { jobId, asked, accepted: false, successes: new Set() };
  });
  const begun = jobs.map(async (job, index) => {
    await systemClock.sleep(random() * withinMs);
    await submit(job, { ...options, client: (turn) => inTurn(index + turn) });
    return job;
  });
  const followed = begun.map(async (accepted, index) => {
    const job = await accepted;
    await watch(job, { ...options, client: (turn) => inTurn(index + turn) });
  });
  const close = () => {
    for (const client of clients) client.close();
  };
  const ended = Promise.all(followed).finally(close);
  setMaxListeners(0, signal); // every call listens
  signal.addEventListener('abort', close, { once: true });
  return { jobs, accepted: Promise.all(begun), ended };
}

interface Way extends Pick<ClientsOptions, 'signal' | 'onComplaint'> {
  /** The client of this try. */
  readonly client: (turn: number) => MeshClient;
}

async function submit(job: SubmittedJob, { client, onComplaint, signal }: Way): Promise<void> {
  for (let turn = 0; !signal.aborted; turn++) {
    try {
      await client(turn).jobs.submit(job.asked, { jobId: job.jobId, timeoutMs: SUBMIT_TIMEOUT_MS, signal });
      job.accepted = true;
      return;
    } catch (error) {
      noteUnusual(`submit ${job.jobId}`, error, onComplaint);
      await systemClock.sleep(PAUSE_MS);
    }
  }
}

async function watch(job: SubmittedJob, { client, onComplaint, signal }: Way): Promise<void> {
  for (let turn = 0; !signal.aborted; turn++) {
    try {
      const ended = await client(turn).jobs.waitFor(job.jobId, { signal });
      if (ended.state === JobState.SUCCEEDED) job.successes.add(String(ended.revision));
      if (hasEnded(ended)) return;
    } catch (error) {
      noteUnusual(`watch ${job.jobId}`, error, onComplaint);
      await systemClock.sleep(PAUSE_MS);
    }
  }
}

function noteUnusual(what: string, error: unknown, onComplaint: (message: string) => void): void {
  if (error instanceof MeshError && (PASSING.has(error.code) || error.code === Code.CANCELLED)) return;
  onComplaint(`${what}: ${String(error)}`);
}
