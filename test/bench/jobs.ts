/**
 * What do durable jobs cost? Four parts, each on a mesh of its own: how many can be submitted each second; how long
 * Get takes when there are very many; whether a long queue of them keeps the nodes busy without growing the service;
 * and what a job takes longer than asking for the same picture directly. Engines are scripted and take a fixed time.
 */
import path from 'node:path';
import { connectMesh } from '#client';
import { jobs as contract, generation, health } from '#contracts';
import { Channel } from '#grpc';
import { type Child, LocalMesh, type LocalMeshOptions } from '#local-mesh';
import { packageRoot, systemClock, systemRandom } from '#runtime';
import { readFigures } from '../support/metrics.js';
import { ASKABLE, askInside } from './support/ask-inside.js';
import { fillJobs } from './support/fill-jobs.js';
import { type Cell, finish, printTable, quantile, readFlags, rounded } from './support/report.js';

const flags = readFlags({
  parts: 'submit,get,drain,overhead',
  submissions: '10000',
  submitters: '64',
  records: '100000',
  gets: '5000',
  getsPerSec: '200',
  waiting: '10000',
  nodes: '8',
  pictures: '200',
});
const SIDE_PX = 64;
const STEPS = 8;
/** Pictures of the long queue: as in the bench of scale. */
const STEP_MS = 50;
const PICTURE_MS = STEPS * STEP_MS;
/** Its picture is not done before the bench is. */
const ENDLESS = '[step=60s]';
const BATCH_COUNT = 1000;
const SAMPLE_MS = 500;
/** Filling and emptying of the mesh are left out. */
const EDGE_RATIO = 0.05;
const PATIENCE_MS = 60_000;
/** Programs that have just started are slower: V8 has not yet compiled what they do often. */
const WARM_UP_COUNT = 300;
const CONNECTION_COUNT = 4;
const GET_CALLER_COUNT = 4;
/** For Get where there is next to nothing, to tell what very many add. */
const FEW_RECORDS = 1000;
/** Get and the bare call take turns, so that both meet the machine in the same mood and neither is the other's load. */
const TURN_COUNT = 10;
const { JobState, JobsServiceService: Jobs } = contract;
const { check } = health.HealthService;
const { generate } = generation.ImageGenerationServiceService;

type Figures = Readonly<Record<string, number>>;
const PARTS: Readonly<Record<string, () => Promise<Figures>>> = { submit, get, drain, overhead };

const figures: Record<string, Figures> = {};
for (const name of flags.parts.split(',')) {
  const part = PARTS[name];
  if (!part) throw new Error(`--parts: expected some of ${Object.keys(PARTS).join(', ')}, got ${name}`);
  console.log(`\n== ${name}`);
  figures[name] = await part();
}
finish(figures);

/** Many callers at once, each waits for its answer; nothing is drawn meanwhile but one endless picture. */
async function submit(): Promise<Figures> {
  return withMesh({ nodes: 1, jobsCount: 1 }, async (mesh) => {
    const through = await submitMany(mesh.address, 'through');
    const direct = await submitMany(only(mesh.jobs[0]).grpc, 'direct');
    const told = { ...through, directPerSec: direct.perSec };
    table(`${flags.submissions} submissions by ${flags.submitters} callers`, [
      ['through a router, a second', told.perSec, '>= 1000'],
      ['one takes, median ms', told.p50Ms, ''],
      ['one takes, p99 ms', told.p99Ms, ''],
      ['at the replica itself, a second', told.directPerSec, ''],
    ]);
    return told;
  });
}

async function submitMany(address: string, name: string) {
  const count = Number(flags.submissions);
  const tookMs: number[] = [];
  let next = 0;
  const startedAt = performance.now();
  const caller = async (channel: Channel) => {
    for (let index = next++; index < count; index = next++) {
      const askedAt = performance.now();
      const message = { jobId: `${name}-${index}`, request: request(index, ENDLESS), options: undefined };
      await channel.unary(Jobs.submit, message, { deadlineAt: systemClock.now() + PATIENCE_MS });
      tookMs.push(performance.now() - askedAt);
    }
  };
  const connection = async () => {
    const channel = new Channel(address, { clock: systemClock });
    await Promise.all(Array.from({ length: Number(flags.submitters) / CONNECTION_COUNT }, () => caller(channel)));
    channel.close();
  };
  await Promise.all(Array.from({ length: CONNECTION_COUNT }, connection));
  const elapsedMs = performance.now() - startedAt;
  return { perSec: rounded((1000 * count) / elapsedMs), p50Ms: rounded(quantile(tookMs, 0.5)), p99Ms: rounded(quantile(tookMs, 0.99)) };
}

/** The bucket is filled directly; then a replica reads it all and answers. */
async function get(): Promise<Figures> {
  const count = Number(flags.records);
  return withMesh({ nodes: 0, jobsCount: 1, env: { jobs: ASKABLE } }, async (mesh) => {
    const [replica] = mesh.jobs;
    const emptyBytes = (await askInside(only(replica))).livingBytes;
    const client = connectMesh({ address: mesh.address });
    const channel = new Channel(mesh.address, { clock: systemClock });
    const getOneOf = (total: number) => () => client.jobs.get(`filled-${Math.floor(systemRandom() * total)}`);
    const bareCall = () => channel.unary(check, { service: '' }, { deadlineAt: systemClock.now() + PATIENCE_MS });
    await fillJobs(mesh.natsUrl, FEW_RECORDS);
    await closedLoop(getOneOf(FEW_RECORDS));
    const few = await inTurns(getOneOf(FEW_RECORDS), bareCall);
    await fillJobs(mesh.natsUrl, count);
    const startedAt = performance.now();
    const second = await mesh.addJobs({ env: ASKABLE });
    await until(async () => (await jobCounts(second)).total >= count);
    const knownAfterMs = performance.now() - startedAt;
    const getOne = getOneOf(count);
    const closed = await closedLoop(getOne);
    const many = await inTurns(getOne, bareCall);
    const listedAt = performance.now();
    await client.jobs.list().next();
    const listMs = performance.now() - listedAt;
    client.close();
    channel.close();
    const p99 = (tookMs: readonly number[]) => rounded(quantile(tookMs, 0.99));
    const told = {
      p50Ms: rounded(quantile(many.tookMs, 0.5)),
      p99Ms: p99(many.tookMs),
      fewP99Ms: p99(few.tookMs),
      manyToFewRatio: rounded(quantile(many.tookMs, 0.99) / quantile(few.tookMs, 0.99)),
      bareP50Ms: rounded(quantile(many.bareMs, 0.5)),
      bareP99Ms: p99(many.bareMs),
      mostPerSec: rounded(closed.perSec),
      mostP50Ms: rounded(quantile(closed.tookMs, 0.5)),
      mostP99Ms: p99(closed.tookMs),
      firstPageMs: rounded(listMs),
      knownAfterMs: rounded(knownAfterMs),
      bytesPerJob: rounded(((await askInside(second)).livingBytes - emptyBytes) / count),
    };
    table(`Get with ${count} jobs`, [
      [`${flags.getsPerSec} a second, median ms`, told.p50Ms, ''],
      [`${flags.getsPerSec} a second, p99 ms`, told.p99Ms, '<= 10'],
      [`the same with ${FEW_RECORDS} jobs, p99 ms`, told.fewP99Ms, ''],
      [`a bare call of the router as often, median ms`, told.bareP50Ms, ''],
      [`a bare call of the router as often, p99 ms`, told.bareP99Ms, ''],
      [`${GET_CALLER_COUNT} callers that ask again at once, a second`, told.mostPerSec, ''],
      ['of theirs, median ms', told.mostP50Ms, ''],
      ['of theirs, p99 ms', told.mostP99Ms, ''],
      ['first page of List, ms', told.firstPageMs, ''],
      ['a new replica knows all after, ms', told.knownAfterMs, ''],
      ['memory of a replica for each, bytes', told.bytesPerJob, ''],
    ]);
    return told;
  });
}

/** How long each takes that comes by chance, and how long a bare call that comes as often. */
async function inTurns(ask: () => Promise<unknown>, bareCall: () => Promise<unknown>) {
  const perSec = Number(flags.getsPerSec);
  const count = Number(flags.gets) / TURN_COUNT;
  const tookMs: number[] = [];
  const bareMs: number[] = [];
  for (let turn = 0; turn < TURN_COUNT; turn++) {
    tookMs.push(...(await openLoopMs(ask, perSec, count)));
    bareMs.push(...(await openLoopMs(bareCall, perSec, count)));
  }
  return { tookMs, bareMs };
}

/** How long each takes when each of a few callers asks again at once: as many as this machine can answer. */
async function closedLoop(ask: () => Promise<unknown>): Promise<{ readonly perSec: number; readonly tookMs: readonly number[] }> {
  const count = Number(flags.gets);
  const tookMs: number[] = [];
  const startedAt = performance.now();
  const caller = async () => {
    for (let index = 0; index < count / GET_CALLER_COUNT; index++) tookMs.push(await timed(performance.now(), ask));
  };
  await Promise.all(Array.from({ length: GET_CALLER_COUNT }, caller));
  return { perSec: (1000 * count) / (performance.now() - startedAt), tookMs };
}

/** How long each takes when they come by chance (Poisson), whether or not those before are answered. */
async function openLoopMs(ask: () => Promise<unknown>, perSec: number, count: number): Promise<number[]> {
  const asked: Promise<number>[] = [];
  let dueAt = performance.now();
  for (let index = 0; index < count; index++) {
    dueAt += (-1000 * Math.log(1 - systemRandom())) / perSec;
    const inMs = dueAt - performance.now();
    if (inMs > 0) await systemClock.sleep(inMs);
    const one = timed(Math.min(dueAt, performance.now()), ask); // what a late one waited for counts
    one.catch(() => {}); // told below
    asked.push(one);
  }
  return Promise.all(asked);
}

async function timed(from: number, ask: () => Promise<unknown>): Promise<number> {
  await ask();
  return performance.now() - from;
}

/** All wait from the beginning. Busy is what the engines drew of what they could have. */
async function drain(): Promise<Figures> {
  const count = Number(flags.waiting);
  const nodes = Number(flags.nodes);
  return withMesh({ nodes, jobsCount: 2, stepMs: STEP_MS, env: { jobs: ASKABLE } }, async (mesh) => {
    const client = connectMesh({ address: mesh.address });
    const startedAt = performance.now();
    for (let first = 0; first < count; first += BATCH_COUNT) {
      const requests = Array.from({ length: Math.min(BATCH_COUNT, count - first) }, (_, index) => picture(first + index));
      await client.jobs.submitBatch(requests);
    }
    const submittedMs = performance.now() - startedAt;
    client.close();
    const replica = only(mesh.jobs[0]);
    const samples: { readonly at: number; readonly done: number }[] = [];
    const memory: number[] = [];
    const living = async () =>
      (await Promise.all(mesh.jobs.map(askInside))).reduce((sum, { livingBytes }) => sum + livingBytes, 0) / 2 ** 20;
    let waitingAtOnce = 0;
    await until(
      async () => {
        const counts = await jobCounts(replica);
        samples.push({ at: performance.now(), done: counts.succeeded });
        waitingAtOnce = Math.max(waitingAtOnce, counts.queued);
        // A few looks are enough: each collects all garbage.
        if (counts.succeeded >= (0.1 + 0.2 * memory.length) * count) memory.push(await living());
        return counts.succeeded >= count;
      },
      10 * (count / nodes) * PICTURE_MS + PATIENCE_MS,
    );
    const inside = samples.filter(({ done }) => done >= EDGE_RATIO * count && done <= (1 - EDGE_RATIO) * count);
    const [from, to] = [only(inside[0]), only(inside.at(-1))];
    const busyRatio = ((to.done - from.done) * PICTURE_MS) / (nodes * (to.at - from.at));
    const told = {
      busyRatio: rounded(busyRatio),
      gapMs: rounded(PICTURE_MS / busyRatio - PICTURE_MS),
      waitingAtOnce,
      submittedPerSec: rounded((1000 * count) / submittedMs),
      memoryEarlyMiB: rounded(memory[0] ?? Number.NaN),
      memoryLateMiB: rounded(memory.at(-1) ?? Number.NaN),
    };
    table(`${count} jobs wait for ${nodes} nodes, ${PICTURE_MS} ms a picture`, [
      ['nodes busy', told.busyRatio, '>= 0.97'],
      ['between two pictures on a node, ms', told.gapMs, ''],
      ['waiting at once', String(told.waitingAtOnce), ''],
      ['submitted by batches, a second', told.submittedPerSec, ''],
      ['memory in use by the replicas, early, MiB', told.memoryEarlyMiB, ''],
      ['memory in use by the replicas, late, MiB', told.memoryLateMiB, '<= 1.1 × that'],
    ]);
    return told;
  });
}

/** In turns: asked for directly, and as a job from Submit until its picture is here. */
async function overhead(): Promise<Figures> {
  const count = Number(flags.pictures);
  return withMesh({ nodes: 1, jobsCount: 2, stepMs: 5 }, async (mesh) => {
    const channel = new Channel(mesh.address, { clock: systemClock });
    const client = connectMesh({ address: mesh.address });
    const directMs: number[] = [];
    const endedMs: number[] = [];
    const collectedMs: number[] = [];
    for (let index = 0; index < WARM_UP_COUNT + count; index++) {
      if (index === WARM_UP_COUNT) for (const tookMs of [directMs, endedMs, collectedMs]) tookMs.length = 0;
      let askedAt = performance.now();
      await channel.unary(generate, request(2 * index), { deadlineAt: systemClock.now() + PATIENCE_MS });
      directMs.push(performance.now() - askedAt);
      askedAt = performance.now();
      const { job } = await client.jobs.submit(picture(2 * index + 1));
      const { state } = await client.jobs.waitFor(job.jobId);
      if (state !== JobState.SUCCEEDED) throw new Error(`expected a picture, the job ended as ${state}`);
      endedMs.push(performance.now() - askedAt);
      await client.jobs.download(job.jobId);
      collectedMs.push(performance.now() - askedAt);
    }
    channel.close();
    client.close();
    const told = {
      directP50Ms: rounded(quantile(directMs, 0.5)),
      endedP50Ms: rounded(quantile(endedMs, 0.5)),
      collectedP50Ms: rounded(quantile(collectedMs, 0.5)),
      addedP50Ms: rounded(quantile(collectedMs, 0.5) - quantile(directMs, 0.5)),
    };
    table(`${count} pictures of ${STEPS * 5} ms, one at a time, p50`, [
      ['asked for directly, ms', told.directP50Ms, ''],
      ['as a job, until it has ended, ms', told.endedP50Ms, ''],
      ['as a job, until its picture is here, ms', told.collectedP50Ms, ''],
      ['a job takes longer by, ms', told.addedP50Ms, '<= 20'],
    ]);
    return told;
  });
}

async function withMesh<T>(
  { stepMs = 5, env, ...options }: Omit<LocalMeshOptions, 'engine'> & { readonly stepMs?: number },
  use: (mesh: LocalMesh) => Promise<T>,
): Promise<T> {
  const engine = `node ${path.join(packageRoot, 'dist/test/engines/scriptable/main.js')}`;
  const node = { SCRIPT_STEP: `${stepMs}ms`, DMESH_NODE_MODEL_DIR: path.join(packageRoot, 'no-such-model') };
  const jobs = {
    DMESH_JOBS_MAX_WAITING: '1000000',
    DMESH_JOBS_MAX_STORED_BYTES: '4096GiB',
    DMESH_JOBS_STORE_RESERVE: '1KiB',
    ...env?.jobs,
  };
  const mesh = await LocalMesh.start({ ...options, engine, graceMs: 2000, env: { ...env, node, jobs } });
  try {
    return await use(mesh);
  } finally {
    await mesh.stop();
  }
}

async function until(isSo: () => Promise<boolean>, timeoutMs = PATIENCE_MS): Promise<void> {
  const endsAt = systemClock.now() + timeoutMs;
  while (!(await isSo())) {
    if (systemClock.now() > endsAt) throw new Error(`expected it within ${timeoutMs} ms`);
    await systemClock.sleep(SAMPLE_MS);
  }
}

/** As this replica knows them. */
async function jobCounts(replica: Child): Promise<{ readonly total: number; readonly queued: number; readonly succeeded: number }> {
  const all = await readFigures(replica.http);
  const of = (state: string) => all.sum('dmesh_jobs_jobs', { state });
  return { total: all.sum('dmesh_jobs_jobs'), queued: of('queued'), succeeded: of('succeeded') };
}

function picture(index: number) {
  return { prompt: `picture ${index}`, seed: index, width: SIDE_PX, height: SIDE_PX, steps: STEPS };
}

function request(index: number, directive = ''): generation.GenerateRequest {
  return generation.GenerateRequest.fromPartial({ ...picture(index), prompt: `picture ${index} ${directive}`, seed: BigInt(index) });
}

function table(title: string, rows: readonly (readonly Cell[])[]): void {
  printTable(title, ['figure', 'value', 'target'], rows);
}

function only<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('expected one, found none');
  return value;
}
