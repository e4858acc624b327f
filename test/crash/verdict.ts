/**
 * What became of every accepted job? Asked of each living jobs replica for itself, and of the folder in which pictures
 * lie, once the mesh is left alone.
 */
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { Code, connectMesh, hasEnded, type Job, JobState, type MeshClient, MeshError } from '#client';
import { systemClock } from '#runtime';
import { parseBlobName } from '../../services/jobs/blobs/blob-name.js';
import { shows } from '../support/picture-oracle.js';
import type { SubmittedJob } from './clients.js';

export interface Figures {
  /** Submit said so. */
  readonly accepted: number;
  /** Accepted, and unknown afterwards, or ended without a picture, or its picture cannot be had. */
  readonly lost: number;
  /** Seen with two results, at two times or at two replicas, or listed twice. */
  readonly doubled: number;
  /** Other bytes than an undisturbed run. */
  readonly wrong: number;
  /** Pictures in the store that no job names, after the sweep. */
  readonly orphaned: number;
  /** Not ended long after the last kill. */
  readonly stuck: number;
}

export interface Verdict {
  readonly figures: Figures;
  /** A line for each fault. */
  readonly faults: readonly string[];
  readonly attempts: number;
  readonly failedAttempts: number;
}

export interface VerdictOptions {
  readonly jobs: readonly SubmittedJob[];
  /** host:port of each jobs replica. */
  readonly addresses: readonly string[];
  readonly storeDir: string;
  /** Of a sweep that finds what was left at the last moment. */
  readonly sweepMs: number;
}

type Fault = Exclude<keyof Figures, 'accepted'>;

const POLL_MS = 250;
/** Of a killed nats-server: a busy machine needs some seconds to start it and to connect everybody anew. */
const BACK_MS = 30_000;

export async function judge({ addresses, jobs, storeDir, sweepMs }: VerdictOptions): Promise<Verdict> {
  const clients = addresses.map((address) => connectMesh({ address }));
  const faults: { readonly kind: Fault; readonly text: string }[] = [];
  let attempts = 0;
  let failedAttempts = 0;
  try {
    const accepted = jobs.filter((job) => job.accepted);
    const listed = await Promise.all(clients.map((client) => onceBack(() => allOf(client))));
    const times = listed.map(timesOf);
    for (const job of accepted) {
      const found = await fateOf(job, clients, times);
      if (found.fault) faults.push({ kind: found.fault.kind, text: `${found.fault.kind}: ${job.jobId}: ${found.fault.why}` });
      attempts += found.attempts;
      failedAttempts += found.failedAttempts;
    }
    const names = new Set(listed.flat().flatMap(namesOf));
    for (const name of await leftOver(storeDir, names, sweepMs)) faults.push({ kind: 'orphaned', text: `orphaned: ${name}` });
    const count = (kind: Fault) => faults.filter((fault) => fault.kind === kind).length;
    return {
      figures: {
        accepted: accepted.length,
        lost: count('lost'),
        doubled: count('doubled'),
        wrong: count('wrong'),
        orphaned: count('orphaned'),
        stuck: count('stuck'),
      },
      faults: faults.map(({ text }) => text),
      attempts,
      failedAttempts,
    };
  } finally {
    for (const client of clients) client.close();
  }
}

interface Fate {
  readonly fault?: { readonly kind: Fault; readonly why: string };
  readonly attempts: number;
  readonly failedAttempts: number;
}

async function fateOf(job: SubmittedJob, clients: readonly MeshClient[], times: readonly Times[]): Promise<Fate> {
  const { asked, jobId, successes } = job;
  const nothing = { attempts: 0, failedAttempts: 0 };
  const seen: Job[] = [];
  const files: Uint8Array[] = [];
  try {
    for (const client of clients) {
      const now = await client.jobs.get(jobId);
      seen.push(now);
      if (now.state === JobState.SUCCEEDED) {
        successes.add(String(now.revision));
        files.push((await client.jobs.download(jobId)).data);
      }
    }
  } catch (error) {
    return { ...nothing, fault: { kind: 'lost', why: error instanceof MeshError ? `${error.reason}: ${error.message}` : String(error) } };
  }
  const [first] = seen;
  if (!first) throw new Error('expected a jobs replica to ask');
  const told = { attempts: first.attempt, failedAttempts: first.failedAttempts };
  const fault = (kind: Fault, why: string): Fate => ({ ...told, fault: { kind, why } });
  const about = `state ${first.state}, attempt ${first.attempt}, ${first.failure?.reason ?? 'no failure'} ${first.failure?.message ?? ''}`;
  if (seen.some((now) => !hasEnded(now))) return fault('stuck', about);
  if (seen.some(({ state }) => state !== JobState.SUCCEEDED)) return fault('lost', about);
  if (successes.size !== 1) return fault('doubled', `revisions ${[...successes].join(', ')}`);
  const listed = times.map((of) => of.get(jobId) ?? 0);
  if (listed.some((count) => count !== 1)) return fault(listed.includes(0) ? 'lost' : 'doubled', `listed ${listed.join(', ')} times`);
  for (const file of files) if (!(await shows(file, asked))) return fault('wrong', about);
  return told;
}

type Times = ReadonlyMap<string, number>;

async function allOf({ jobs }: MeshClient): Promise<readonly Job[]> {
  const all: Job[] = [];
  for await (const job of jobs.list()) all.push(job);
  return all;
}

/** What was killed last may still be on its way back, longer than a client waits. */
async function onceBack<T>(ask: () => Promise<T>): Promise<T> {
  for (const endsAt = systemClock.now() + BACK_MS; ; ) {
    try {
      return await ask();
    } catch (thrown) {
      const isAway = thrown instanceof MeshError && thrown.code === Code.UNAVAILABLE;
      if (!isAway || systemClock.now() > endsAt) throw thrown;
      await systemClock.sleep(POLL_MS);
    }
  }
}

/** How often each id is listed. */
function timesOf(all: readonly Job[]): Times {
  const times = new Map<string, number>();
  for (const { jobId } of all) times.set(jobId, (times.get(jobId) ?? 0) + 1);
  return times;
}

/** Of its pictures. */
function namesOf({ attempt, jobId, result }: Job): string[] {
  return (result?.images ?? []).map(({ sha256 }) => nameOf({ attempt, jobId, sha256 }));
}

function nameOf({ attempt, jobId, sha256 }: { readonly jobId: string; readonly attempt: number; readonly sha256: string }): string {
  return `${jobId} ${attempt} ${sha256}`;
}

/** What is in the store and has none of these names, when sweeps have had their time. */
async function leftOver(storeDir: string, names: ReadonlySet<string>, sweepMs: number): Promise<string[]> {
  const endsAt = systemClock.now() + sweepMs;
  for (;;) {
    const files = await readdir(storeDir, { recursive: true });
    const left = files.filter((file) => {
      const [tenant = '', ...rest] = file.split(path.sep);
      const parts = parseBlobName(`${tenant}/${rest.at(-1)}`);
      return parts !== undefined && !names.has(nameOf(parts));
    });
    if (left.length === 0 || systemClock.now() > endsAt) return left;
    await systemClock.sleep(POLL_MS);
  }
}
