/** Durable jobs over a whole mesh: submitted, drawn, collected. What is killed meanwhile is test/faults/jobs-crash.test.ts. */
import { afterEach, expect, test } from 'vitest';
import { jobs as contract } from '#contracts';
import { scriptedPicture } from '../engines/scriptable/picture.js';
import { pixelsOf } from '../support/picture-oracle.js';
import { only, useMesh } from '../support/test-mesh.js';

const { JobState } = contract;
const env = { node: { SCRIPT_STEP: '10ms' }, router: { DMESH_ROUTER_NO_NODES_WAIT: '300ms' } };
const mesh = useMesh({ nodes: 2, routerCount: 2, jobsCount: 2, env });
const jobs = () => mesh().client.jobs;
const PATIENCE = { timeout: 20_000, interval: 50 };

/** Two replicas again, for the next test. */
afterEach(async () => {
  const { jobs: replicas } = mesh().local;
  const dead = replicas.filter(({ id, running }) => !running && !replicas.some((other) => other.id === id && other.running));
  for (const child of new Map(dead.map((child) => [child.id, child])).values()) await mesh().local.restart(child);
});

const stateOf = async (jobId: string) => (await jobs().get(jobId)).state;
const becomes = (jobId: string, state: contract.JobState) => expect.poll(() => stateOf(jobId), PATIENCE).toBe(state);

/** The bytes that the mesh draws for this when asked directly. */
async function drawnDirectly(prompt: string, seed: number): Promise<Buffer> {
  return Buffer.from(only((await mesh().client.generate({ prompt, seed })).images[0]).data);
}

async function collected(jobId: string): Promise<Buffer> {
  await becomes(jobId, JobState.SUCCEEDED);
  return Buffer.from((await jobs().download(jobId)).data);
}

/** Some wait while others run, for a second or so; `check` after whatever happened meanwhile. */
async function submitMany(name: string, count = 6) {
  const prompt = `a picture of ${name} [step=50ms]`;
  const ids = Array.from({ length: count }, (_, index) => `${name}-${index}`);
  for (const [index, jobId] of ids.entries()) await jobs().submit({ prompt, seed: index }, { jobId });
  const anyRuns = async () => (await Promise.all(ids.map(stateOf))).includes(JobState.RUNNING);
  await expect.poll(anyRuns, PATIENCE).toBe(true);
  const check = () =>
    Promise.all(
      ids.map(async (jobId, index) => {
        const right = scriptedPicture({ prompt, seed: BigInt(index), width: 128, height: 128 });
        expect((await pixelsOf(await collected(jobId))).equals(right), jobId).toBe(true);
      }),
    );
  return { check };
}

test('submitted, drawn and fetched: the same bytes as drawn directly with that seed', async () => {
  const { job, created } = await jobs().submit({ prompt: 'a red circle', seed: 7 }, { jobId: 'first' });
  expect([created, job.state]).toEqual([true, JobState.QUEUED]);
  expect(await collected('first')).toEqual(await drawnDirectly('a red circle', 7));
  const done = await jobs().get('first');
  expect(done).toMatchObject({ attempt: 1, failedAttempts: 0, priority: 3 });
  expect(done.nodeId).toMatch(/^node-/);
  expect((await jobs().submit({ prompt: 'a red circle', seed: 7 }, { jobId: 'first' })).created).toBe(false);
});

test('a job that runs tells its steps to whoever watches, at any replica', async () => {
  await jobs().submit({ prompt: 'slow [step=200ms]', seed: 1 }, { jobId: 'watched' });
  const seen: contract.Job[] = [];
  for await (const job of jobs().watch('watched')) seen.push(job);
  expect(seen.some(({ state, step, totalSteps }) => state === JobState.RUNNING && step > 0 && totalSteps === 8)).toBe(true);
  expect(only(seen.at(-1)).state).toBe(JobState.SUCCEEDED);
});

test('cancelled while it runs, the GPU is free at once', async () => {
  await jobs().submit({ prompt: 'endless [step=5s]', seed: 1 }, { jobId: 'cancelled' });
  await becomes('cancelled', JobState.RUNNING);
  await jobs().cancel('cancelled');
  await expect.poll(() => mesh().held(), { timeout: 4000, interval: 50 }).toEqual({});
  expect(await stateOf('cancelled')).toBe(JobState.CANCELLED);
});

test('what is not drawn in its time expires', async () => {
  await jobs().submit({ prompt: 'endless [step=5s]', seed: 1 }, { jobId: 'expired', expireAfterMs: 1000 });
  await becomes('expired', JobState.EXPIRED);
});

test('what no node takes says why, from whichever replica, without a write, until it is drawn', async () => {
  const { client } = mesh();
  for (const node of ['node-1', 'node-2']) await client.drain(node);
  const ids = Array.from({ length: 8 }, (_, index) => `waits-${index}`);
  const submitted = await Promise.all(ids.map((jobId, seed) => jobs().submit({ prompt: 'a red circle', seed }, { jobId })));
  const reasons = async () => {
    const all = await Promise.all(ids.map((jobId) => jobs().get(jobId)));
    return all.map(({ waitingFor, revision }, index) => [waitingFor?.reason, revision === submitted[index]?.job.revision]);
  };
  // More than one replica hands over at once: most have not been tried.
  await expect.poll(reasons, PATIENCE).toEqual(ids.map(() => ['NO_NODES', true]));
  for (const node of ['node-1', 'node-2']) await client.resume(node);
  for (const jobId of ids) await becomes(jobId, JobState.SUCCEEDED);
  for (const jobId of ids) expect((await jobs().get(jobId)).waitingFor).toBeUndefined();
});

test('a request that breaks its nodes fails at once, with the reason', async () => {
  await jobs().submit({ prompt: 'broken [oom]', seed: 1 }, { jobId: 'failed' });
  await becomes('failed', JobState.FAILED);
  expect((await jobs().get('failed')).failure).toMatchObject({ reason: 'POISON' });
});

test('NATS killed while jobs run: Submit says so at once, what runs is recorded when it is back', async () => {
  const { check } = await submitMany('nats');
  await only(mesh().local.nats).kill();
  const refused = () =>
    jobs()
      .submit({ prompt: 'x', seed: 1 }, { timeoutMs: 500 })
      .catch(({ reason }) => reason);
  await expect.poll(refused, PATIENCE).toBe('STORE_UNAVAILABLE');
  await mesh().local.restartNats();
  await check();
});

test('a replica that is stopped finishes what nodes draw and leaves the rest to others', async () => {
  const { check } = await submitMany('drain');
  const [first] = mesh().local.jobs.filter(({ running }) => running);
  expect(await only(first).stop(10_000)).toMatchObject({ code: 0 });
  await check();
});
