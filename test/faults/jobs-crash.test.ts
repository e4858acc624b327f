/**
 * The crash matrix of durable jobs: a jobs replica killed at each step of a job (it stands still there, see
 * test/support/stopping-jobs.ts), and every other kind of process while jobs wait and run. After each kill every
 * accepted job has one result with the bytes of an undisturbed run, and nothing is left over in the store.
 */
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { ANONYMOUS_TENANT } from '#access';
import { connectMesh, JobState } from '#client';
import type { Child } from '#local-mesh';
import { packageRoot } from '#runtime';
import { jobKey } from '../../services/jobs/domain/record.js';
import type { Step } from '../../services/jobs/run/attempt.js';
import { candidate, ownerOf } from '../../services/jobs/run/ownership.js';
import { type SubmittedJob, submitAll } from '../crash/clients.js';
import { killEngine } from '../crash/killer.js';
import { judge } from '../crash/verdict.js';
import { only, useMesh } from '../support/test-mesh.js';

const dir = await mkdtemp(path.join(tmpdir(), 'dmesh-test-'));
afterAll(() => rm(dir, { recursive: true, force: true }));
let keepDir = '';
function nextKeepDir(): string {
  keepDir = path.join(dir, randomUUID());
  return keepDir;
}
const mesh = useMesh(() => ({
  nodes: 2,
  routerCount: 2,
  jobsCount: 2,
  keepDir: nextKeepDir(),
  programs: { jobs: path.join(packageRoot, 'dist/test/support/stopping-jobs.js') },
  env: { node: { SCRIPT_STEP: '20ms' }, jobs: { DMESH_JOBS_ORPHAN_AFTER: '1s', DMESH_JOBS_SWEEP_EVERY: '1s' } },
}));
const PATIENCE = { timeout: 40_000, interval: 50 };
const SWEEP_MS = 20_000;

/** Submitted at either router, by callers that do not give up. */
function submit(jobIds: readonly string[]) {
  return submitAll({
    addresses: mesh().local.routers.map(({ grpc }) => grpc),
    jobIds,
    withinMs: 0,
    random: Math.random,
    signal: new AbortController().signal,
    onComplaint: (message) => process.stderr.write(`${message}\n`),
  });
}

/** By the two replicas that are always there. */
async function judged(jobs: readonly SubmittedJob[]) {
  const addresses = ['jobs-1', 'jobs-2'].map((id) => only(mesh().local.jobs.find((child) => child.id === id)).grpc);
  const { faults, figures } = await judge({ jobs, addresses, storeDir: path.join(keepDir, 'jobs'), sweepMs: SWEEP_MS });
  return { ...figures, faults };
}

const flawless = (accepted: number) => ({ accepted, lost: 0, doubled: 0, wrong: 0, orphaned: 0, stuck: 0, faults: [] });

/** What a job is for everybody else while its replica stands at this step, and how often it was begun in the end. */
const STEPS: readonly (readonly [step: Step, state: JobState, attempts: number])[] = [
  ['created', JobState.SUCCEEDED, 1], // on disk, and its caller has no answer: it runs like any other
  ['handed', JobState.QUEUED, 1],
  ['drawing', JobState.QUEUED, 1], // a node draws it, and its record does not say so yet
  ['begun', JobState.RUNNING, 2],
  ['drawn', JobState.RUNNING, 2],
  ['blobStored', JobState.RUNNING, 2],
  ['recorded', JobState.SUCCEEDED, 1],
];
const replicaAt = (step: Step) => `stops-at-${step}`;

/** An id that this replica owns among all of them. */
function idOwnedBy(replicaId: string, step: Step): string {
  const candidates = ['jobs-1', 'jobs-2', ...STEPS.map(([other]) => replicaAt(other))].map(candidate);
  for (let number = 0; ; number++) {
    const jobId = `${step}-${number}`;
    if (ownerOf(jobKey(ANONYMOUS_TENANT, jobId), candidates) === replicaId) return jobId;
  }
}

test('a replica killed at each step of a job: one result each, drawn again only where it was lost', { timeout: 120_000 }, async () => {
  const { local } = mesh();
  const replicas = await Promise.all(STEPS.map(([step]) => local.addJobs({ id: replicaAt(step), env: { STOP_AT: step } })));
  const everybody = [...local.jobs];
  const known = async (child: Child) => (await mesh().figures(child)).sum('dmesh_jobs_replicas');
  for (const child of everybody) await expect.poll(() => known(child), PATIENCE).toBe(everybody.length);

  const ids = STEPS.map(([step]) => idOwnedBy(replicaAt(step), step));
  const { accepted, ended, jobs } = submit(ids.slice(1));
  await accepted;
  // The first asks the replica itself, and gets no answer; so it asks again, elsewhere.
  const direct = connectMesh({ address: only(replicas[0]).grpc });
  const created: SubmittedJob = { ...only(jobs[0]), jobId: only(ids[0]), accepted: false, successes: new Set() };
  const unanswered = direct.jobs.submit(created.asked, { jobId: created.jobId, timeoutMs: 60_000 }).catch(({ reason }) => reason);
  await Promise.all(
    replicas.map((child, index) =>
      child.waitForLine(({ fields }) => fields?.stopped_at === STEPS[index]?.[0], { timeoutMs: 30_000, what: 'to stand still' }),
    ),
  );
  const others = mesh().client.jobs;
  for (const [index, [, state]] of STEPS.entries()) {
    await expect.poll(async () => (await others.get(only(ids[index]))).state, PATIENCE).toBe(state);
  }

  for (const replica of replicas) replica.kill('SIGKILL');
  expect(await unanswered).toMatch(/CONNECT/); // its line was cut, or it asked once more
  direct.close();
  expect((await others.submit(created.asked, { jobId: created.jobId })).created).toBe(false);
  created.accepted = true;
  await ended;
  expect(await judged([created, ...jobs])).toEqual(flawless(STEPS.length));
  const attempts = await Promise.all(ids.map(async (id) => (await others.get(id)).attempt));
  expect(Object.fromEntries(STEPS.map(([step], index) => [step, attempts[index]]))).toEqual(
    Object.fromEntries(STEPS.map(([step, , count]) => [step, count])),
  );
});

const living = (children: readonly Child[], id: string) => only(children.find((child) => child.id === id && child.running));

/** Each kills (or freezes, which others cannot tell from it), and brings back what does not come back by itself. */
const KILLS: Readonly<Record<string, () => Promise<void>>> = {
  'both jobs replicas killed': async () => {
    const replicas = ['jobs-1', 'jobs-2'].map((id) => living(mesh().local.jobs, id));
    for (const replica of replicas) replica.kill('SIGKILL');
    await Promise.all(replicas.map(({ exited }) => exited));
    await Promise.all(replicas.map((replica) => mesh().local.restart(replica)));
  },
  // What comes of its attempts later is too late: their fence has moved on.
  'a jobs replica frozen until it counts as gone': async () => {
    const [alive, frozen] = ['jobs-1', 'jobs-2'].map((id) => living(mesh().local.jobs, id));
    only(frozen).kill('SIGSTOP');
    await expect.poll(async () => (await mesh().figures(alive)).sum('dmesh_jobs_replicas'), PATIENCE).toBe(1);
    only(frozen).kill('SIGCONT');
  },
  'a router killed': async () => {
    const router = living(mesh().local.routers, 'router-2');
    router.kill('SIGKILL');
    await router.exited;
    await mesh().revive(router);
  },
  'a node killed': async () => {
    const node = mesh().node('node-1');
    node.kill('SIGKILL');
    await node.exited;
    await mesh().revive(node);
  },
  'an engine killed': async () => {
    expect(killEngine(mesh().node('node-2'))).toBe(true);
    await mesh().whole();
  },
  'nats-server killed': async () => {
    await only(mesh().local.nats).kill();
    await mesh().local.restartNats();
  },
};

test.each(Object.entries(KILLS))('%s while jobs wait and run: one result each', async (name, kill) => {
  const { ended, jobs } = submit(Array.from({ length: 12 }, (_, index) => `${name.replaceAll(/\W+/g, '-')}-${index}`));
  const client = mesh().client.jobs;
  const isRunning = async ({ jobId }: SubmittedJob) => (await client.get(jobId)).state === JobState.RUNNING;
  const running = async () => (await Promise.all(jobs.map((job) => isRunning(job).catch(() => false)))).filter(Boolean).length;
  await expect.poll(running, PATIENCE).toBeGreaterThan(0);
  await kill();
  await ended;
  expect(await judged(jobs)).toEqual(flawless(12));
});
