/** dmesh submit and dmesh jobs against a JobsService whose jobs succeed one by one as they are looked at. */
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { connectMesh } from '#client';
import { generation, jobs } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import { type HandlersOf, Server } from '#grpc';
import { systemClock } from '#runtime';
import { collectBatches } from './batch-collect.js';
import { planBatches } from './batch-plan.js';
import { ExitCode } from './command.js';
import { dispatch } from './dispatch.js';
import { noPaint } from './terminal.js';

const Jobs = jobs.JobsServiceService;
type Handlers = HandlersOf<typeof Jobs>;
const { JobState } = jobs;

let dir = '';
const cleanups: (() => Promise<void> | void)[] = [];
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'dmesh-jobs-'));
  cleanups.push(() => rm(dir, { recursive: true }));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const pictureOf = (prompt: string) => Buffer.from(`a picture of ${prompt}`);
const digestOf = (data: Buffer) => createHash('sha256').update(data).digest('hex');
const unknown = () => new StatusError({ code: Code.NOT_FOUND, reason: 'UNKNOWN_JOB', message: 'expected a job of yours' });

const differs = (fields: string) =>
  new StatusError({ code: Code.ALREADY_EXISTS, reason: Reason.JOB_DIFFERS, message: `another ${fields}`, metadata: { fields } });

/** A prompt with "bad" fails. */
class FakeJobs {
  readonly batches = new Map<string, jobs.Job[]>();
  /** By batch, as it was submitted. */
  readonly jobIds = new Map<string, string>();
  /** What is said of a batch that is there with other jobs. */
  differing = 'items';
  submitCount = 0;
  /** So many looks find NATS away. */
  awayCount = 0;
  downloadCount = 0;
  room = Number.POSITIVE_INFINITY;
  /** A download waits for this. */
  download = async (_jobId: string) => {};

  find(jobId: string): jobs.Job {
    const job = [...this.batches.values()].flat().find((each) => each.jobId === jobId);
    if (!job) throw unknown();
    return job;
  }

  /** The next one that waits. */
  finishOne(batchId: string): void {
    const job = this.batches.get(batchId)?.find(({ state }) => state === JobState.QUEUED);
    if (!job) return;
    this.room++;
    const { prompt = '', seed = 0n } = job.request ?? {};
    if (prompt.includes('bad')) {
      job.state = JobState.FAILED;
      job.failure = { code: 3, reason: 'POISON', message: 'it broke two nodes' };
      return;
    }
    const data = pictureOf(prompt);
    const image = { mimeType: 'image/png', width: 8, height: 8, seed, sizeBytes: BigInt(data.length), sha256: digestOf(data) };
    job.state = JobState.SUCCEEDED;
    job.result = jobs.JobResult.fromPartial({ images: [image], executingMs: 40 });
  }

  countsOf(batchId: string): jobs.Batch {
    const list = this.batches.get(batchId) ?? [];
    const count = (state: jobs.JobState) => list.filter((job) => job.state === state).length;
    return jobs.Batch.fromPartial({
      batchId,
      jobCount: list.length,
      queuedCount: count(JobState.QUEUED),
      succeededCount: count(JobState.SUCCEEDED),
      failedCount: count(JobState.FAILED),
      cancelledCount: count(JobState.CANCELLED),
    });
  }

  readonly handlers: Partial<Handlers> = {
    submitBatch: async ({ request: { batchId, items } }) => {
      this.submitCount++;
      const created = !this.batches.has(batchId);
      if (created && items.length > this.room) {
        throw new StatusError({ code: Code.RESOURCE_EXHAUSTED, reason: 'TOO_MANY_JOBS', message: 'too many jobs wait' });
      }
      const jobIds = items.map(({ jobId }) => jobId).join();
      if (!created && jobIds !== this.jobIds.get(batchId)) throw differs(this.differing);
      this.jobIds.set(batchId, jobIds);
      const made = items.map(({ jobId, request }) =>
        jobs.Job.fromPartial({ jobId, batchId, state: JobState.QUEUED, position: 1, ...(request ? { request } : {}) }),
      );
      if (created) {
        this.batches.set(batchId, made);
        this.room -= made.length;
      }
      return { batch: this.countsOf(batchId), jobIds: items.map(({ jobId }) => jobId), created };
    },
    getBatch: async ({ request: { batchId } }) => {
      if (this.awayCount-- > 0) {
        throw new StatusError({ code: Code.FAILED_PRECONDITION, reason: Reason.STORE_UNAVAILABLE, message: 'NATS is away' });
      }
      if (!this.batches.has(batchId)) throw unknown();
      this.finishOne(batchId);
      return { batch: this.countsOf(batchId) };
    },
    list: async ({ request: { batchId, states } }) => {
      const all = [...this.batches.values()].flat();
      const wanted = all.filter(
        (job) => (batchId === '' || job.batchId === batchId) && (states.length === 0 || states.includes(job.state)),
      );
      return { jobs: wanted, nextPageToken: '' };
    },
    get: async ({ request: { jobId } }) => ({ job: this.find(jobId) }),
    watch: async ({ request: { jobId } }, out) => {
      const job = this.find(jobId);
      await out.write({ job });
      this.finishOne(job.batchId);
      await out.write({ job });
    },
    cancel: async ({ request: { which } }) => {
      if (which?.$case !== 'batchId') {
        const job = this.find(which?.value ?? '');
        job.state = JobState.CANCELLED;
        return { job, cancelledCount: 1 };
      }
      const waiting = this.batches.get(which.value)?.filter(({ state }) => state === JobState.QUEUED) ?? [];
      for (const job of waiting) job.state = JobState.CANCELLED;
      return { job: undefined, cancelledCount: waiting.length };
    },
    retry: async ({ request: { jobId } }) => {
      const job = this.find(jobId);
      if (job.state === JobState.SUCCEEDED) {
        throw new StatusError({ code: Code.FAILED_PRECONDITION, reason: 'JOB_ENDED', message: 'it has succeeded' });
      }
      job.state = JobState.QUEUED;
      job.failure = undefined;
      return { job };
    },
    delete: async ({ request: { jobId } }) => {
      const { batchId } = this.find(jobId);
      this.batches.set(batchId, this.batches.get(batchId)?.filter((job) => job.jobId !== jobId) ?? []);
      return {};
    },
    download: async ({ request: { jobId } }, out) => {
      this.downloadCount++;
      await this.download(jobId);
      const data = pictureOf(this.find(jobId).request?.prompt ?? '');
      await out.write({ data, offset: 0n, totalBytes: BigInt(data.length), mimeType: 'image/png', sha256: digestOf(data) });
    },
  };
}

async function start() {
  const fake = new FakeJobs();
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 24 });
  server.add(Jobs, fake.handlers as Handlers);
  const router = `127.0.0.1:${await server.listen('127.0.0.1:0')}`;
  cleanups.push(() => server.close());
  const dmesh = async (args: readonly string[], options: { interactive?: boolean; signal?: AbortSignal } = {}) => {
    let out = '';
    let err = '';
    const code = await dispatch(args, {
      env: { DMESH_ROUTER: router },
      signal: options.signal ?? new AbortController().signal,
      hurry: new AbortController().signal,
      terminal: {
        out: (text) => {
          out += text;
        },
        err: (text) => {
          err += text;
        },
        interactive: options.interactive ?? false,
        columnCount: 200,
        paint: noPaint,
      },
    });
    return { code, out, err };
  };
  return { fake, router, dmesh };
}

async function prompts(...lines: string[]): Promise<string> {
  const file = path.join(dir, 'prompts.txt');
  await writeFile(file, lines.join('\n'));
  return file;
}

const picturesIn = async (folder: string) => (await readdir(folder)).filter((name) => !name.startsWith('.')).sort();

test('planBatches(): the same content is the same jobs, whatever the ends of lines; other content is others', () => {
  const plan = planBatches('a red circle\r\n\r\n  a yellow heart \n', { steps: 4 }, {});
  expect(plan).toEqual(planBatches('a red circle\na yellow heart', { steps: 4 }, {}));
  expect(plan).toHaveLength(1);
  const [batch] = plan;
  expect(batch?.jobs.map(({ name }) => name)).toEqual(['1-a-red-circle', '2-a-yellow-heart']);
  expect(batch?.jobs.map(({ jobId }) => jobId)).toEqual([`${batch?.batchId}-0`, `${batch?.batchId}-1`]);
  const ids = [
    plan,
    planBatches('a red circle', { steps: 4 }, {}),
    planBatches('a red circle\na yellow heart', { steps: 5 }, {}),
    planBatches('a red circle\na yellow heart', { steps: 4 }, { webhookUrl: 'http://x' }),
  ].map((each) => each[0]?.batchId);
  expect(new Set(ids).size).toBe(4);
  for (const id of ids) expect(id).toMatch(/^b-[0-9a-f]{20}$/);
});

test('planBatches(): seeds are fixed, and two equal lines are two pictures; a thousand jobs at most in a batch', () => {
  const [same] = planBatches('x\nx', {}, {});
  expect(same?.jobs[0]?.request.seed).not.toBe(same?.jobs[1]?.request.seed);
  const [counted] = planBatches('x\ny', { seed: 7n }, {});
  expect(counted?.jobs.map(({ request }) => request.seed)).toEqual([7n, 8n]);
  const many = planBatches(Array.from({ length: 2001 }, (_, i) => `line ${i}`).join('\n'), {}, {});
  expect(many.map(({ jobs: list }) => list.length)).toEqual([1000, 1000, 1]);
  expect(many[2]?.jobs[0]?.name).toBe('2001-line-2000');
  expect(new Set(many.flatMap(({ jobs: list }) => list.map(({ jobId }) => jobId))).size).toBe(2001);
});

test('submit draws a file of prompts into a folder; given again it fetches only what is missing', async () => {
  const { fake, dmesh } = await start();
  const file = await prompts('a red circle', 'a yellow heart', 'a green star');
  const out = path.join(dir, 'pictures');
  const args = ['submit', file, '--out', out, '--steps', '4'];
  const first = await dmesh(args, { interactive: true });
  expect(first).toMatchObject({ code: ExitCode.OK, out: expect.stringMatching(/^3 pictures in .*pictures\n$/) });
  expect(first.err).toContain('3 of 3 done, 3 saved');
  const names = ['1-a-red-circle.png', '2-a-yellow-heart.png', '3-a-green-star.png'];
  expect(await picturesIn(out)).toEqual(names);
  expect(await readFile(path.join(out, '2-a-yellow-heart.png'))).toEqual(pictureOf('a yellow heart'));
  expect([fake.batches.size, fake.downloadCount]).toEqual([1, 3]);

  await rm(path.join(out, '1-a-red-circle.png'));
  await writeFile(path.join(out, '3-a-green-star.png'), 'half a pict');
  const again = await dmesh([...args, '--json']);
  expect(again.code).toBe(ExitCode.OK);
  expect(JSON.parse(again.out)).toMatchObject({
    batches: [...fake.batches.keys()],
    fetched: [path.join(out, '1-a-red-circle.png'), path.join(out, '3-a-green-star.png')],
    replaced: [path.join(out, '3-a-green-star.png')],
    kept: [path.join(out, '2-a-yellow-heart.png')],
    failed: [],
  });
  expect([fake.batches.size, fake.downloadCount]).toEqual([1, 5]);
  expect(await picturesIn(out)).toEqual(names);
});

test('submit, when the mesh has forgotten the jobs: what lies in the folder is not drawn again, only what is missing or changed', async () => {
  const { fake, dmesh } = await start();
  const out = path.join(dir, 'pictures');
  const args = ['submit', await prompts('a red circle', 'a yellow heart', 'a bad one'), '--out', out];
  await dmesh(args);
  const [batchId = ''] = fake.batches.keys();
  const [circle, heart] = ['1-a-red-circle.png', '2-a-yellow-heart.png'].map((name) => path.join(out, name));
  const asked = () => [...fake.batches.values()].flat().map(({ jobId }) => jobId);
  const again = async () => JSON.parse((await dmesh([...args, '--json'])).out);

  // Some are forgotten: what is there is not missed.
  fake.batches.set(batchId, fake.batches.get(batchId)?.slice(2) ?? []);
  expect(await again()).toMatchObject({ kept: [circle, heart], fetched: [], gone: [], failed: [{ jobId: `${batchId}-2` }] });
  fake.batches.clear();
  await writeFile(heart ?? '', 'of somebody else');
  expect(await again()).toMatchObject({
    kept: [circle],
    fetched: [heart],
    replaced: [heart],
    gone: [],
    failed: [{ jobId: `${batchId}-2` }],
  });
  expect(asked()).toEqual([`${batchId}-1`, `${batchId}-2`]);
  // The rest of it is known now, and gone on with.
  expect(await again()).toMatchObject({ kept: [circle, heart], fetched: [], failed: [{ jobId: `${batchId}-2` }] });
  expect(asked()).toHaveLength(2);

  fake.batches.clear();
  await prompts('a red circle', 'a yellow heart');
  expect(await again()).toMatchObject({ kept: [circle, heart], fetched: [] }); // other jobs, and their pictures come to the same
  fake.batches.clear();
  expect(await again()).toMatchObject({ kept: [circle, heart], fetched: [] });
  expect((await dmesh([...args, '--no-wait'])).out).toBe(`every picture is in ${out}\n`);
  expect(asked()).toEqual([]);
  await prompts('a red circle', 'a blue heart');
  expect((await again()).fetched).toEqual([path.join(out, '2-a-blue-heart.png')]);
  expect(asked()).toHaveLength(2);
});

test('submit, when the mesh has forgotten the jobs and was asked for some of them again from another folder', async () => {
  const { fake, dmesh } = await start();
  const [one, other] = [path.join(dir, 'one'), path.join(dir, 'other')];
  const args = ['submit', await prompts('a red circle', 'a yellow heart'), '--json', '--out'];
  await dmesh([...args, one]);
  await rm(path.join(one, '2-a-yellow-heart.png'));
  fake.batches.clear();
  await dmesh([...args, one]);
  const [batchId = ''] = fake.batches.keys();
  const part = await dmesh([...args, other]);
  expect(part.code).toBe(ExitCode.FAILED);
  const heart = path.join(other, '2-a-yellow-heart.png');
  expect(JSON.parse(part.out)).toMatchObject({ fetched: [heart], failed: [], gone: [`${batchId}-0`] });
  fake.batches.clear();
  expect(JSON.parse((await dmesh([...args, other])).out)).toMatchObject({
    fetched: [path.join(other, '1-a-red-circle.png')],
    kept: [heart],
  });
  await rm(heart);
  fake.differing = 'items[0].job_id,items[1].job_';
  expect((await dmesh([...args, other])).code).toBe(ExitCode.FAILED);
  fake.differing = 'items[0].model';
  expect((await dmesh([...args, path.join(dir, 'third')])).err).toContain('another items[0].model');
});

test('two submits at once fetch the same jobs into the same folder', async () => {
  const { fake, dmesh } = await start();
  const out = path.join(dir, 'pictures');
  const lines = Array.from({ length: 40 }, (_, index) => `circle ${index}`);
  const args = ['submit', await prompts(...lines), '--out', out];
  await dmesh([...args, '--no-wait']);
  const [batchId = ''] = fake.batches.keys();
  for (let count = 0; count < lines.length; count++) fake.finishOne(batchId);
  const asked = new Map<string, () => void>();
  fake.download = (jobId) =>
    new Promise((resolve) => {
      const other = asked.get(jobId);
      asked.set(jobId, resolve);
      if (!other) return;
      other();
      resolve();
    });
  const both = await Promise.all([dmesh(args), dmesh(args)]);
  expect(both).toMatchObject([{ code: ExitCode.OK }, { code: ExitCode.OK }]);
  expect(await picturesIn(out)).toHaveLength(lines.length);
  expect(await readdir(out)).toHaveLength(lines.length + 1); // and the notes
  fake.batches.clear();
  expect(JSON.parse((await dmesh([...args, '--json'])).out).kept).toHaveLength(lines.length);
});

test('a note that is no note, or half of one, is passed over', async () => {
  const { fake, dmesh } = await start();
  const out = path.join(dir, 'pictures');
  const args = ['submit', await prompts('a red circle'), '--out', out];
  await dmesh(args);
  const notes = path.join(out, '.dmesh-jobs.jsonl');
  const note = (await readFile(notes, 'utf8')).trim();
  await writeFile(notes, ['null', '7', '{"jobId":3}', note.replace(/"files".*/, '"files":[null]}'), note.slice(0, -9)].join('\n'));
  fake.batches.clear();
  expect((await dmesh(args)).code).toBe(ExitCode.OK);
  expect(fake.batches.size).toBe(1);
  expect((await readFile(notes, 'utf8')).endsWith(`\n${note}`)).toBe(true);
});

test('submit --no-wait leaves at once; what failed or is gone is told by name', async () => {
  const { fake, dmesh } = await start();
  const file = await prompts('a red circle', 'a bad one', 'a star');
  const submitted = await dmesh(['submit', file, '--no-wait']);
  const [batchId = ''] = fake.batches.keys();
  expect(submitted).toMatchObject({ code: ExitCode.OK, out: `${batchId}  3 jobs\n` });
  expect(fake.batches.get(batchId)?.[0]?.request?.priority).toBe(generation.Priority.UNSPECIFIED);
  await dmesh(['jobs', 'delete', `${batchId}-2`]);
  const collected = await dmesh(['submit', file, '--out', path.join(dir, 'out')]);
  expect(collected.code).toBe(ExitCode.FAILED);
  expect(collected.out).toContain('1 picture in');
  expect(collected.out).toContain(`2-a-bad-one: failed: POISON: it broke two nodes (${batchId}-1)`);
  expect(collected.out).toContain(`3-a-star: the mesh does not know it any more (${batchId}-2)`);
});

test('batches for which there is no room wait for those before them', async () => {
  const { fake, router, dmesh } = await start();
  fake.room = 3;
  const plan = [...planBatches('a\nb', {}, {}), ...planBatches('c\nd', {}, {})];
  const mesh = connectMesh({ address: router });
  cleanups.push(() => mesh.close());
  const out = path.join(dir, 'out');
  const unsentCounts: number[] = [];
  const collected = await collectBatches(plan, {
    jobs: mesh.jobs,
    clock: systemClock,
    signal: new AbortController().signal,
    dir: out,
    settings: {},
    onProgress: ({ unsentCount }) => unsentCounts.push(unsentCount),
  });
  expect(collected.fetched).toHaveLength(4);
  expect(new Set(unsentCounts)).toEqual(new Set([2, 0]));
  fake.room = 0;
  expect(await dmesh(['submit', await prompts('e'), '--out', out])).toMatchObject({
    code: ExitCode.UNAVAILABLE,
    err: expect.stringContaining('TOO_MANY_JOBS'),
  });
});

test('a mesh that is away while somebody waits is asked again, for two minutes', async () => {
  const { fake, router } = await start();
  fake.awayCount = 2;
  const mesh = connectMesh({ address: router });
  cleanups.push(() => mesh.close());
  const troubles: (string | undefined)[] = [];
  const collect = (text: string, now: () => number) =>
    collectBatches(planBatches(text, {}, {}), {
      jobs: mesh.jobs,
      clock: { now, sleep: (ms, signal) => systemClock.sleep(Math.min(ms, 1), signal), schedule: systemClock.schedule },
      signal: new AbortController().signal,
      dir: path.join(dir, 'out'),
      settings: {},
      onProgress: ({ trouble }) => troubles.push(trouble?.reason),
    });
  expect((await collect('a', () => 0)).fetched).toHaveLength(1);
  expect(troubles).toEqual([undefined, 'STORE_UNAVAILABLE', 'STORE_UNAVAILABLE', undefined]);
  fake.awayCount = Number.POSITIVE_INFINITY;
  let nowMs = 0;
  await expect(collect('b', () => (nowMs += 40_000))).rejects.toThrow('NATS is away');
  expect(troubles.length).toBeGreaterThan(5);
});

test('jobs list, show, watch, cancel, retry and download', async () => {
  const { fake, dmesh } = await start();
  const file = await prompts('a red circle', 'a bad one', 'a star');
  await dmesh(['submit', file, '--no-wait']);
  const [batchId = ''] = fake.batches.keys();
  const listed = await dmesh(['jobs', 'list', '--state', 'queued', '--batch', batchId]);
  expect(listed.out).toMatch(/JOB +STATE/);
  expect(listed.out.match(/queued/g)).toHaveLength(3);
  expect((await dmesh(['jobs', 'list', '--limit', '1', '--json'])).out.trim().split('\n')).toHaveLength(1);
  expect((await dmesh(['jobs', 'list', '--state', 'expired'])).out).toBe('There are no such jobs.\n');

  const third = fake.find(`${batchId}-2`);
  third.waitingFor = { code: Code.UNAVAILABLE, reason: Reason.NO_NODES, message: 'no node takes z-image-tiny' };
  third.nextAttemptAtMs = 1_700_000_000_000n;
  const why = 'position 1: NO_NODES: no node takes z-image-tiny';
  expect((await dmesh(['jobs', 'show', `${batchId}-2`])).out).toContain(`queued  ${why}; again at 2023-11-14T22:13:20Z\n`);
  expect((await dmesh(['jobs', 'list'])).out).toContain(why);

  const watched = await dmesh(['jobs', 'watch', `${batchId}-0`]);
  expect(watched).toMatchObject({ code: ExitCode.OK, out: expect.stringMatching(/^queued {2}position 1\nsucceeded .*40 ms\n$/) });
  expect(await dmesh(['jobs', 'watch', `${batchId}-1`])).toMatchObject({ code: ExitCode.FAILED });
  const shown = await dmesh(['jobs', 'show', `${batchId}-1`]);
  expect(shown.out).toContain('failure    POISON: it broke two nodes');
  expect(JSON.parse((await dmesh(['jobs', 'show', `${batchId}-1`, '--json'])).out)).toMatchObject({
    jobId: `${batchId}-1`,
    state: 'JOB_STATE_FAILED',
    request: { prompt: 'a bad one' },
  });
  expect((await dmesh(['jobs', 'retry', `${batchId}-1`])).out).toContain('queued');
  expect((await dmesh(['jobs', 'cancel', `${batchId}-1`])).out).toContain('cancelled');
  expect((await dmesh(['jobs', 'cancel', '--batch', batchId])).out).toBe(`1 of ${batchId} cancelled\n`);
  expect(await dmesh(['jobs', 'retry', `${batchId}-0`])).toMatchObject({
    code: ExitCode.REFUSED,
    err: expect.stringContaining('JOB_ENDED'),
  });

  const picture = path.join(dir, 'mine.png');
  expect(await dmesh(['jobs', 'download', `${batchId}-0`, '-o', picture])).toMatchObject({ code: ExitCode.OK });
  expect(await readFile(picture)).toEqual(pictureOf('a red circle'));
  expect((await dmesh(['jobs', 'download', `${batchId}-0`, '-o', picture])).out).toContain('in place of an older file');
  expect(await dmesh(['jobs', 'show', 'nobody'])).toMatchObject({ code: ExitCode.REFUSED, err: expect.stringContaining('UNKNOWN_JOB') });
});

test('Ctrl-C stops the waiting, and says that the jobs go on', async () => {
  const { fake, dmesh } = await start();
  fake.finishOne = () => {};
  const stop = new AbortController();
  const file = await prompts('a red circle');
  const running = dmesh(['submit', file, '--out', path.join(dir, 'out')], { signal: stop.signal });
  await expect.poll(() => fake.submitCount).toBe(1);
  stop.abort();
  expect(await running).toMatchObject({ code: ExitCode.INTERRUPTED, err: expect.stringContaining('the jobs go on') });
});

test('without a jobs service there is advice', async () => {
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20 });
  const away = () => Promise.reject(new StatusError({ code: Code.UNAVAILABLE, reason: Reason.NO_JOBS_SERVICE, message: 'none' }));
  server.add(Jobs, Object.fromEntries(Object.keys(Jobs).map((name) => [name, away])) as unknown as Handlers);
  cleanups.push(() => server.close());
  const { dmesh } = await start();
  const router = `127.0.0.1:${await server.listen('127.0.0.1:0')}`;
  expect(await dmesh(['jobs', 'list', '--router', router])).toMatchObject({
    code: ExitCode.UNAVAILABLE,
    err: expect.stringContaining('"dmesh up" starts a mesh with one'),
  });
});

test.each([
  [['submit'], 'expected a file of PROMPTS'],
  [['submit', '/no/such/file'], 'ENOENT'],
  [['submit', '/dev/null', '--out', 'x'], 'expected a prompt on each line, got none'],
  [['submit', '/no/such/file', '--expire', 'soon', '--steps', '0'], '--steps: expected'],
  [['jobs'], 'expected list, show, watch, cancel, retry, delete, download, got nothing'],
  [['jobs', 'eat'], 'got "eat"'],
  [['jobs', 'show'], 'expected the ID of a job'],
  [['jobs', 'cancel'], 'expected the ID of a job'],
  [['jobs', 'list', '--state', 'done', '--from', 'noon'], '--from: expected a time'],
])('%j is a wrong command line', async (args, fault) => {
  const { dmesh } = await start();
  expect(await dmesh(args)).toMatchObject({ code: ExitCode.USAGE, err: expect.stringContaining(fault) });
});
