/**
 * One round: a mesh of two routers, two jobs replicas and three nodes, jobs submitted by callers that retry, and every
 * two seconds a random process of it killed and started again. Then: has every accepted job exactly one result, with
 * the bytes of an undisturbed run, and is nothing left over?
 *
 * A seed repeats who is killed when and what is submitted when; what the operating system makes of it differs.
 */
import { createWriteStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ALL_JOB_EVENTS, type Bus, connectBus } from '#bus';
import { LocalMesh } from '#local-mesh';
import { packageRoot, systemClock, systemRandom } from '#runtime';
import { seededRandom } from '../support/seeded-random.js';
import { type SubmittedJob, submitAll } from './clients.js';
import { killForAWhile } from './killer.js';
import { judge, type Verdict } from './verdict.js';

export interface RoundOptions {
  readonly seed: number;
  readonly jobCount: number;
  /** A process is killed every two seconds for so long. */
  readonly killMs: number;
}

export interface Round extends Verdict {
  readonly seed: number;
  /** In order. */
  readonly killed: readonly string[];
  /** Answers that callers do not expect, and what went wrong on the side of the test. */
  readonly complaints: readonly string[];
  /** From the last kill until the last job had ended, milliseconds. */
  readonly settledMs: number;
  /** Every line of every process and what is stored; kept when something is not as it should be. */
  readonly dir: string;
}

const KILL_EVERY_MS = 2000;
/** Before that all are submitted: each kill meets jobs that wait. */
const SUBMIT_RATIO = 0.7;
/** So long after the last kill every job has long ended: what was left is drawn in half of it. */
const PATIENCE_MS = 90_000;
const SWEEP_MS = 20_000;
const NODE_COUNT = 3;
const STEP_COUNT = 8;
/** Of what the nodes can draw meanwhile: killed they draw less. */
const LOAD_RATIO = 0.5;

export async function runRound({ jobCount, killMs, seed }: RoundOptions): Promise<Round> {
  const dir = await mkdtemp(path.join(tmpdir(), 'dmesh-crash-'));
  const log = createWriteStream(path.join(dir, 'lines.txt'));
  const startedAt = systemClock.now();
  const note = (process: string, text: string) => log.write(`${Math.round(systemClock.now() - startedAt)} ${process}: ${text}\n`);
  const random = seededRandom(seed);
  const stepMs = Math.max(1, Math.round((LOAD_RATIO * NODE_COUNT * killMs) / jobCount / STEP_COUNT));
  const killed: string[] = [];
  const complaints: string[] = [];
  const onComplaint = (message: string) => {
    complaints.push(message);
    note('test', message);
  };
  const onKill = (victim: string) => {
    killed.push(victim);
    note('test', `killed ${victim}`);
  };
  const mesh = await LocalMesh.start({
    nodes: NODE_COUNT,
    routerCount: 2,
    jobsCount: 2,
    keepDir: dir,
    engine: `node ${path.join(packageRoot, 'dist/test/engines/scriptable/main.js')}`,
    env: {
      node: { SCRIPT_STEP: `${stepMs}ms`, DMESH_NODE_MODEL_DIR: '/no/folder/means/its/own/model' },
      jobs: { DMESH_JOBS_RETRY_DELAY: '1s', DMESH_JOBS_ORPHAN_AFTER: '1s', DMESH_JOBS_SWEEP_EVERY: '1s' },
    },
    graceMs: 5000,
    onLine: ({ process, text }) => note(process, text),
  });
  const over = new AbortController();
  const addresses = mesh.routers.map(({ grpc }) => grpc);
  const replicas = mesh.jobs.map(({ grpc }) => grpc);
  const { accepted, ended, jobs } = submitAll({
    addresses,
    jobIds: Array.from({ length: jobCount }, (_, index) => `job-${index}`),
    withinMs: SUBMIT_RATIO * killMs,
    // A generator of its own: how often callers draw must not change who is killed.
    random: seededRandom(seed + 1),
    signal: over.signal,
    onComplaint,
  });
  const bus = hearSuccesses(mesh.natsUrl, jobs);
  let clean = false;
  try {
    await killForAWhile({ mesh, random, everyMs: KILL_EVERY_MS, onKill, onComplaint }, killMs);
    const calmAt = systemClock.now();
    const late = systemClock.sleep(PATIENCE_MS, over.signal).catch(() => {});
    await Promise.race([Promise.all([accepted, ended]), late]);
    const settledMs = Math.round(systemClock.now() - calmAt);
    over.abort();
    const verdict = await judge({ jobs, addresses: replicas, storeDir: path.join(dir, 'jobs'), sweepMs: SWEEP_MS });
    for (const fault of verdict.faults) note('test', fault);
    clean = verdict.faults.length === 0 && verdict.figures.accepted === jobCount;
    return { ...verdict, seed, killed, complaints, settledMs, dir };
  } finally {
    over.abort();
    await bus.close();
    await mesh.stop();
    log.end();
    if (clean) await rm(dir, { recursive: true, force: true });
  }
}

/** Whoever listens on NATS must not hear of two results either. */
function hearSuccesses(url: string, jobs: readonly SubmittedJob[]): Bus {
  const byId = new Map(jobs.map((job) => [job.jobId, job]));
  const bus = connectBus({ url, name: 'crash', credentials: undefined, clock: systemClock, random: systemRandom, emit: () => {} });
  bus.subscribe(ALL_JOB_EVENTS, ({ data }) => {
    const event = JSON.parse(Buffer.from(data).toString('utf8')) as Readonly<Record<string, unknown>>;
    if (event.state === 'SUCCEEDED') byId.get(String(event.job_id))?.successes.add(String(event.revision));
  });
  return bus;
}
