/** dmesh submit, and dmesh jobs on what it has submitted. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { connectMesh } from '#client';
import { generation, jobs } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import { type HandlersOf, Server } from '#grpc';
import { systemClock } from '#runtime';
import { FakeJobs, pictureOf } from '../../test/support/fake-jobs.js';
import { runDmesh } from '../../test/support/run-dmesh.js';
import { type CollectProgress, collectJobs } from './batch-collect.js';
import { planJobs } from './batch-plan.js';
import { submitJobs } from './batch-submit.js';
import { ExitCode } from './command.js';

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

async function start() {
  const fake = new FakeJobs();
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 24 });
  server.add(Jobs, fake.handlers as Handlers);
  const router = `127.0.0.1:${await server.listen('127.0.0.1:0')}`;
  cleanups.push(() => server.close());
  const dmesh = (args: readonly string[], { interactive = false, signal }: { interactive?: boolean; signal?: AbortSignal } = {}) =>
    runDmesh(args, { env: { DMESH_ROUTER: router }, terminal: { interactive, columnCount: 200 }, ...(signal ? { signal } : {}) });
  return { fake, router, dmesh };
}

async function prompts(...lines: string[]): Promise<string> {
  const file = path.join(dir, 'prompts.txt');
  await writeFile(file, lines.join('\n'));
  return file;
}

const picturesIn = async (folder: string) => (await readdir(folder)).filter((name) => !name.startsWith('.')).sort();

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
    jobs: fake.all.map(({ jobId }) => jobId),
    fetched: [path.join(out, '1-a-red-circle.png'), path.join(out, '3-a-green-star.png')],
    replaced: [path.join(out, '3-a-green-star.png')],
    kept: [path.join(out, '2-a-yellow-heart.png')],
    failed: [],
  });
  expect([fake.batches.size, fake.downloadCount]).toEqual([1, 5]);
  expect(await picturesIn(out)).toEqual(names);
});

test('submit, when the mesh has forgotten the jobs: only what is missing or changed is drawn again, and gone on with', async () => {
  const { fake, dmesh } = await start();
  const out = path.join(dir, 'pictures');
  const args = ['submit', await prompts('a red circle', 'a yellow heart', 'a bad one'), '--out', out];
  await dmesh(args);
  const [circle = '', heart = ''] = ['1-a-red-circle.png', '2-a-yellow-heart.png'].map((name) => path.join(out, name));
  const bad = fake.of('a bad one').jobId;
  const asked = () => fake.all.map(({ request }) => request?.prompt);
  const again = async () => JSON.parse((await dmesh([...args, '--json'])).out);

  fake.forgetAll();
  await writeFile(heart, 'of somebody else');
  expect(await again()).toMatchObject({ kept: [circle], fetched: [heart], replaced: [heart], gone: [], failed: [{ jobId: bad, line: 3 }] });
  expect(asked()).toEqual(['a yellow heart', 'a bad one']);
  await rm(circle);
  expect(await again()).toMatchObject({ kept: [heart], fetched: [circle], replaced: [], gone: [], failed: [{ jobId: bad }] });
  expect(asked()).toEqual(['a yellow heart', 'a bad one', 'a red circle']);
  expect(await again()).toMatchObject({ kept: [circle, heart], fetched: [], failed: [{ jobId: bad }] });

  // From another folder as well, of which nobody knows what it had.
  await rm(heart);
  const other = await dmesh(['submit', args[1] ?? '', '--out', path.join(dir, 'other'), '--json']);
  expect(JSON.parse(other.out)).toMatchObject({ fetched: [expect.any(String), expect.any(String)], gone: [], batches: { length: 2 } });
  expect(asked()).toHaveLength(3);

  await prompts('a red circle', 'a yellow heart');
  await again();
  fake.forgetAll();
  expect((await dmesh([...args, '--no-wait'])).out).toBe(`every picture is in ${out}\n`);
  expect(asked()).toEqual([]);
});

test('submit draws again what was deleted, as often as it is', async () => {
  const { fake, dmesh } = await start();
  const out = path.join(dir, 'pictures');
  const args = ['submit', await prompts('a red circle', 'a yellow heart'), '--out', out];
  await dmesh(args);
  const batchIds = new Set(fake.batches.keys());
  for (const prompts of [['a red circle', 'a yellow heart'], ['a red circle'], ['a red circle', 'a yellow heart']]) {
    for (const prompt of prompts) expect((await dmesh(['jobs', 'delete', fake.of(prompt).jobId])).code).toBe(ExitCode.OK);
    await rm(out, { recursive: true });
    const submitted = await dmesh([...args, '--no-wait']);
    expect(submitted.code).toBe(ExitCode.OK);
    const [batchId = ''] = submitted.out.split(' ');
    expect(submitted.out).toContain(`${batchId}  ${prompts.length} job${prompts.length > 1 ? 's' : ''}\n`);
    batchIds.add(batchId);
    expect(await dmesh(args)).toMatchObject({ code: ExitCode.OK, out: `2 pictures in ${out}\n` });
  }
  expect([batchIds.size, fake.all.length]).toEqual([4, 2]);
});

test('of a changed file only the lines that are new are drawn, and each picture has the number of its line', async () => {
  const { fake, dmesh } = await start();
  const out = path.join(dir, 'pictures');
  const args = ['submit', await prompts('cat!', 'cat?', 'a red circle'), '--out', out];
  await dmesh(args);
  const seedOf = (prompt: string) => fake.of(prompt).request?.seed;
  const seeds = [seedOf('cat!'), seedOf('cat?')];
  await prompts('cat?', 'cat!', 'a blue circle');
  const mended = await dmesh(args);
  expect(mended).toMatchObject({ code: ExitCode.OK, err: '' });
  expect(mended.out).toBe(
    `3 pictures in ${out}, 2 of them were there (2 under another name)\n` +
      `${path.join(out, '3-a-red-circle.png')}: of another line than this file has\n`,
  );
  expect(await picturesIn(out)).toEqual(['1-cat.png', '2-cat.png', '3-a-blue-circle.png', '3-a-red-circle.png']);
  expect(await readFile(path.join(out, '1-cat.png'))).toEqual(pictureOf('cat?'));
  expect(await readFile(path.join(out, '2-cat.png'))).toEqual(pictureOf('cat!'));
  expect([fake.all.length, [seedOf('cat!'), seedOf('cat?')]]).toEqual([4, seeds]);

  // One more above, and ten of them: other numbers, and what has the name of one of them goes.
  await prompts('new', 'cat?', 'cat!', 'a blue circle', ...Array.from({ length: 6 }, (_, index) => `more ${index}`));
  await rm(path.join(out, '3-a-red-circle.png'));
  await writeFile(path.join(out, '02-cat.png'), 'of somebody else');
  fake.forgetAll();
  const [batchId = ''] = (await dmesh([...args, '--no-wait'])).out.split(' ');
  for (let count = 0; count < 7; count++) fake.finishOne(batchId);
  const shifted = JSON.parse((await dmesh([...args, '--json'])).out);
  expect(shifted).toMatchObject({ replaced: [path.join(out, '02-cat.png')], older: [], renamed: shifted.kept });
  expect([fake.all.length, shifted.fetched.length, shifted.kept.length]).toEqual([7, 7, 3]);
  expect((await readdir(out)).filter((name) => name.endsWith('.part'))).toEqual([]);
  expect((await picturesIn(out)).slice(0, 4)).toEqual(['01-new.png', '02-cat.png', '03-cat.png', '04-a-blue-circle.png']);
});

test('who submits some of the same lines at the same moment has them drawn once', async () => {
  const { fake, dmesh } = await start();
  const file = await prompts('a red circle', 'a yellow heart');
  const one = path.join(dir, 'one.txt');
  await writeFile(one, 'a yellow heart');
  let other: ReturnType<typeof dmesh> | undefined;
  fake.beforeSubmit = () => {
    fake.beforeSubmit = () => {};
    const [planned] = planJobs('a yellow heart', { loras: [] }, {});
    const heart = { jobId: planned?.jobId ?? '', request: generation.GenerateRequest.fromPartial({ prompt: 'a yellow heart' }) };
    fake.batches.set('theirs', [jobs.Job.fromPartial({ ...heart, batchId: 'theirs', state: JobState.QUEUED })]);
    other = dmesh(['submit', one, '--out', path.join(dir, 'two')]);
  };
  expect(await dmesh(['submit', file, '--out', path.join(dir, 'out')])).toMatchObject({ code: ExitCode.OK });
  expect(await other).toMatchObject({ code: ExitCode.OK });
  expect(fake.all.map(({ request }) => request?.prompt).sort()).toEqual(['a red circle', 'a yellow heart']);
});

test('a few jobs that the mesh has among many that it has not are found, also where it has no room for more', async () => {
  const { fake, dmesh } = await start();
  const lines = Array.from({ length: 30 }, (_, index) => `circle ${index}`);
  await dmesh(['submit', await prompts('circle 1', 'circle 2'), '--no-wait']);
  fake.room = 0;
  const file = await prompts(...lines);
  const full = await dmesh(['submit', file, '--no-wait', '--json']);
  expect(full.code).toBe(ExitCode.UNAVAILABLE);
  expect(JSON.parse(full.out)).toMatchObject({ waiting: { length: 2 }, unsent: { length: 28 } });
  fake.room = 100;
  expect((await dmesh(['submit', file, '--no-wait'])).out.match(/2 jobs|28 jobs/g)?.sort()).toEqual(['2 jobs', '28 jobs']);
  const again = await dmesh(['submit', file, '--no-wait', '--json']);
  expect(JSON.parse(again.out)).toMatchObject({ batches: { length: 2 }, waiting: { length: 30 } });
  expect(fake.all).toHaveLength(30);
});

test('faults of prompts are told by the line of the file', async () => {
  const { dmesh } = await start();
  await dmesh(['submit', await prompts('', 'a red circle'), '--no-wait']);
  const file = await prompts('', 'a red circle', '', 'far too long', 'also too long');
  const refused = await dmesh(['submit', file, '--no-wait']);
  expect(refused).toMatchObject({
    code: ExitCode.REFUSED,
    err: 'error: line 4: prompt: expected 1 to 9 bytes (INVALID_ARGUMENT/BAD_REQUEST)\n       line 5: prompt: expected 1 to 9 bytes\n',
  });
});

test('who waits is told why, once', async () => {
  const { fake, dmesh } = await start();
  const file = await prompts('a red circle', 'a star');
  await dmesh(['submit', file, '--no-wait']);
  fake.of('a star').waitingFor = { code: Code.UNAVAILABLE, reason: Reason.NO_NODES, message: 'no node takes it' };
  const out = path.join(dir, 'out');
  expect((await dmesh(['submit', file, '--out', out])).err).toBe('1 of 2 done, the next waits: NO_NODES: no node takes it\n');

  fake.forgetAll();
  await rm(out, { recursive: true });
  await dmesh(['submit', file, '--no-wait']);
  fake.of('a star').waitingFor = { code: Code.UNAVAILABLE, reason: Reason.NO_NODES, message: 'no node takes it' };
  expect((await dmesh(['submit', file, '--out', out], { interactive: true })).err).toMatch(
    /1 saved.*, the next waits: NO_NODES: no node takes it/,
  );
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
  fake.forgetAll();
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
  fake.forgetAll();
  expect((await dmesh(args)).code).toBe(ExitCode.OK);
  expect(fake.batches.size).toBe(1);
  expect((await readFile(notes, 'utf8')).endsWith(`\n${note}`)).toBe(true);
});

test('submit --no-wait leaves at once, and tells what will not be drawn; what failed is told with what to do about it', async () => {
  const { fake, dmesh } = await start();
  const file = await prompts('a red circle', '', 'a bad one', 'a star');
  const submitted = await dmesh(['submit', file, '--no-wait']);
  const [batchId = ''] = fake.batches.keys();
  expect(submitted).toMatchObject({ code: ExitCode.OK, out: `${batchId}  3 jobs\n` });
  expect(fake.of('a star').request?.priority).toBe(generation.Priority.UNSPECIFIED);
  const [bad, star] = [fake.of('a bad one').jobId, fake.of('a star').jobId];
  await dmesh(['jobs', 'cancel', star]);
  const again = await dmesh(['submit', file, '--no-wait']);
  const retry = '"dmesh jobs retry JOB" runs one once more; then give this command again';
  expect(again).toMatchObject({ code: ExitCode.FAILED, out: `${batchId}  2 jobs\n3-a-star: cancelled (line 4, ${star})\n${retry}\n` });
  const out = path.join(dir, 'out');
  expect(await dmesh(['submit', file, '--out', out])).toMatchObject({
    code: ExitCode.FAILED,
    out: [
      `1 picture in ${out}`,
      `2-a-bad-one: failed: POISON: it broke two nodes (line 3, ${bad})`,
      `3-a-star: cancelled (line 4, ${star})`,
      'POISON: another try ends alike; correct the line or the options, and give this command again',
      `of the others ${retry}\n`,
    ].join('\n'),
  });
  await dmesh(['jobs', 'retry', star]);
  const handed = await dmesh(['submit', file, '--no-wait', '--out', out, '--json']);
  expect(JSON.parse(handed.out)).toMatchObject({
    jobs: { length: 3 },
    waiting: [star],
    drawn: [],
    keptCount: 1,
    failed: [{ jobId: bad }],
    unsent: [],
  });
  await rm(out, { recursive: true });
  expect((await dmesh(['submit', file, '--no-wait'])).out).toContain('1 job drawn already, to be fetched without --no-wait\n');
});

test('a job that is deleted while it is waited for is told, and drawn when the command is given again', async () => {
  const { fake, dmesh } = await start();
  const args = ['submit', await prompts('a red circle', 'a star'), '--out', path.join(dir, 'out')];
  fake.download = async () => {
    fake.download = async () => {};
    const { jobId } = fake.of('a star');
    await dmesh(['jobs', 'delete', jobId]);
  };
  const first = await dmesh(args);
  expect(first.code).toBe(ExitCode.FAILED);
  expect(first.out).toMatch(
    /^1 picture in .*\n2-a-star: the mesh does not know it any more; this command again draws it again \(line 2, j-\w+\)\n$/,
  );
  expect(await dmesh(args)).toMatchObject({ code: ExitCode.OK, out: expect.stringMatching(/^2 pictures in .*, 1 of them were there\n$/) });
});

test('what there is no room for waits for those before it', async () => {
  const { fake, router, dmesh } = await start();
  const mesh = connectMesh({ address: router });
  cleanups.push(() => mesh.close());
  const options = { jobs: mesh.jobs, clock: systemClock, signal: new AbortController().signal, settings: {} };
  const text = Array.from({ length: 2001 }, (_, index) => `line ${index}`).join('\n');
  fake.room = 1500;
  const { known, unsent } = await submitJobs(planJobs(text, {}, {}), options, { mayWait: false, isLooked: true });
  expect([known.length, unsent.length, unsent[0]?.line]).toEqual([1000, 1001, 1001]);
  await expect(submitJobs(unsent, options, { mayWait: false, isLooked: true })).rejects.toMatchObject({ reason: 'TOO_MANY_JOBS' });
  expect(await submitJobs(unsent, options, { mayWait: true, isLooked: true })).toEqual({ known: [], lost: [], unsent });

  fake.forgetAll();
  fake.room = 2;
  const out = path.join(dir, 'out');
  await submitJobs(planJobs('a\nb', {}, {}), options, { mayWait: false, isLooked: true });
  const unsentCounts: number[] = [];
  const onProgress = ({ unsentCount }: CollectProgress) => unsentCounts.push(unsentCount);
  const collected = await collectJobs(planJobs('a\nb\nc', {}, {}), { ...options, dir: out, onProgress });
  expect(collected.fetched).toHaveLength(3);
  expect(new Set(unsentCounts)).toEqual(new Set([1, 0]));
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
    collectJobs(planJobs(text, {}, {}), {
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
  const [circle, bad, star] = fake.all.map(({ jobId }) => jobId) as [string, string, string];
  const listed = await dmesh(['jobs', 'list', '--state', 'queued', '--batch', batchId]);
  expect(listed.out).toMatch(/JOB +STATE/);
  expect(listed.out.match(/queued/g)).toHaveLength(3);
  expect((await dmesh(['jobs', 'list', '--limit', '1', '--json'])).out.trim().split('\n')).toHaveLength(1);
  expect((await dmesh(['jobs', 'list', '--state', 'expired'])).out).toBe('There are no such jobs.\n');

  const third = fake.find(star);
  third.waitingFor = { code: Code.UNAVAILABLE, reason: Reason.NO_NODES, message: 'no node takes z-image-tiny' };
  third.nextAttemptAtMs = 1_700_000_000_000n;
  const why = 'position 1: NO_NODES: no node takes z-image-tiny';
  expect((await dmesh(['jobs', 'show', star])).out).toContain(`queued  ${why}; again at 2023-11-14T22:13:20Z\n`);
  expect((await dmesh(['jobs', 'list'])).out).toContain(why);

  const watched = await dmesh(['jobs', 'watch', circle]);
  expect(watched).toMatchObject({ code: ExitCode.OK, out: expect.stringMatching(/^queued {2}position 1\nsucceeded .*40 ms\n$/) });
  expect(await dmesh(['jobs', 'watch', bad])).toMatchObject({ code: ExitCode.FAILED });
  const shown = await dmesh(['jobs', 'show', bad]);
  expect(shown.out).toContain('failure    POISON: it broke two nodes');
  expect(JSON.parse((await dmesh(['jobs', 'show', bad, '--json'])).out)).toMatchObject({
    jobId: bad,
    state: 'JOB_STATE_FAILED',
    request: { prompt: 'a bad one' },
  });
  expect((await dmesh(['jobs', 'retry', bad])).out).toContain('queued');
  expect((await dmesh(['jobs', 'cancel', bad])).out).toContain('cancelled');
  expect((await dmesh(['jobs', 'cancel', '--batch', batchId])).out).toBe(`1 of ${batchId} cancelled\n`);
  expect(await dmesh(['jobs', 'retry', circle])).toMatchObject({
    code: ExitCode.REFUSED,
    err: expect.stringContaining('JOB_ENDED'),
  });

  const picture = path.join(dir, 'mine.png');
  expect(await dmesh(['jobs', 'download', circle, '-o', picture])).toMatchObject({ code: ExitCode.OK });
  expect(await readFile(picture)).toEqual(pictureOf('a red circle'));
  expect((await dmesh(['jobs', 'download', circle, '-o', picture])).out).toContain('in place of an older file');
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
