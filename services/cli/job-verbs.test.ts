/** dmesh jobs where an id, a state or a path is not the one that was meant, and its verbs for a whole batch. */
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { jobs } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import { type HandlersOf, Server } from '#grpc';
import { systemClock } from '#runtime';
import { runDmesh } from '../../test/support/run-dmesh.js';
import { ExitCode } from './command.js';
import { describeJobs } from './job-words.js';
import { noPaint } from './terminal.js';

const Jobs = jobs.JobsServiceService;
type Handlers = HandlersOf<typeof Jobs>;
const { JobState } = jobs;

let dir = '';
const cleanups: (() => Promise<void> | void)[] = [];
beforeEach(async () => {
  dir = await mkdtemp(path.join(tmpdir(), 'dmesh-verbs-'));
  cleanups.push(() => rm(dir, { recursive: true }));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const unknown = () => new StatusError({ code: Code.NOT_FOUND, reason: Reason.UNKNOWN_JOB, message: 'there is no such job' });
const damaged = () => new StatusError({ code: Code.DATA_LOSS, reason: Reason.RECORD_DAMAGED, message: 'it cannot be read' });
const away = () => new StatusError({ code: Code.UNAVAILABLE, reason: Reason.STORE_UNAVAILABLE, message: 'NATS is away' });
const png = Buffer.from('a picture');
const PNG_SHA256 = createHash('sha256').update(png).digest('hex');

/** A batch b of jobs b-0, b-1, … in these states. */
async function start(states: readonly jobs.JobState[]) {
  const asked: string[] = [];
  const refusals = new Map<string, () => StatusError>();
  const all = states.map((state, index) => jobs.Job.fromPartial({ jobId: `b-${index}`, batchId: 'b', state }));
  const find = (jobId: string) => {
    const refuse = refusals.get(jobId);
    const job = all.find((each) => each.jobId === jobId);
    if (refuse || !job) throw refuse?.() ?? unknown();
    asked.push(jobId);
    return job;
  };
  const handlers: Partial<Handlers> = {
    get: async ({ request }) => ({ job: find(request.jobId) }),
    list: async ({ request }) => ({
      jobs: [...all].reverse().filter((job) => request.states.length === 0 || request.states.includes(job.state)),
      nextPageToken: '',
    }),
    getBatch: async ({ request }) => {
      if (request.batchId !== 'b') throw unknown();
      return { batch: jobs.Batch.fromPartial({ batchId: 'b', jobCount: all.length }) };
    },
    retry: async ({ request }) => ({ job: find(request.jobId) }),
    delete: async ({ request }) => {
      find(request.jobId);
      return {};
    },
    download: async ({ request: { jobId } }, out) => {
      const { state } = find(jobId);
      if (state !== JobState.SUCCEEDED) {
        const metadata = { state: jobs.JobState[state].replace('JOB_STATE_', '') };
        throw new StatusError({ code: Code.FAILED_PRECONDITION, reason: Reason.NO_RESULT, message: 'it has no pictures', metadata });
      }
      await out.write({ data: png, offset: 0n, totalBytes: BigInt(png.length), mimeType: 'image/png', sha256: PNG_SHA256 });
    },
  };
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20 });
  const none = () => Promise.reject(new Error('not part of this test'));
  server.add(Jobs, { ...Object.fromEntries(Object.keys(Jobs).map((name) => [name, none])), ...handlers } as Handlers);
  const router = `127.0.0.1:${await server.listen('127.0.0.1:0')}`;
  cleanups.push(() => server.close());
  const dmesh = (...args: string[]) => runDmesh(args, { env: { DMESH_ROUTER: router }, terminal: { columnCount: 200 } });
  return { asked, dmesh, refusals };
}

const { SUCCEEDED, FAILED, CANCELLED, EXPIRED, QUEUED } = JobState;

test('retry and delete of a batch are for those jobs that they can be for, the first ones first', async () => {
  const { asked, dmesh } = await start([SUCCEEDED, FAILED, QUEUED, CANCELLED, EXPIRED]);
  expect(await dmesh('jobs', 'retry', '--batch', 'b')).toEqual({ code: ExitCode.OK, out: '3 of 5 of b queued again\n', err: '' });
  expect(asked.splice(0)).toEqual(['b-1', 'b-3', 'b-4']);
  expect(await dmesh('jobs', 'delete', '--batch', 'b')).toEqual({ code: ExitCode.OK, out: '4 of 5 of b forgotten\n', err: '' });
  expect(asked).toEqual(['b-0', 'b-1', 'b-3', 'b-4']);
});

test('a job that is refused does not keep back the others; a mesh that is away does', async () => {
  const { asked, dmesh, refusals } = await start([FAILED, FAILED, FAILED]);
  refusals.set('b-0', unknown).set('b-1', damaged);
  const some = await dmesh('jobs', 'retry', '--batch', 'b');
  expect(some).toMatchObject({ code: ExitCode.FAILED, out: '1 of 3 of b queued again\n' });
  expect(some.err).toBe('b-0: UNKNOWN_JOB: there is no such job\nb-1: RECORD_DAMAGED: it cannot be read\n');
  const { out } = await dmesh('jobs', 'delete', '--batch', 'b', '--json');
  expect(JSON.parse(out)).toMatchObject({ jobCount: 3, changedCount: 1, refused: [{ jobId: 'b-0' }, { jobId: 'b-1' }] });
  asked.length = 0;
  refusals.clear();
  refusals.set('b-0', away);
  const none = await dmesh('jobs', 'retry', '--batch', 'b');
  expect(none).toMatchObject({ code: ExitCode.UNAVAILABLE, err: expect.stringContaining('if you run the mesh: ') });
  expect(asked).toEqual([]);
});

test('the id of a batch in place of that of a job is known for what it is', async () => {
  const { dmesh } = await start([FAILED, QUEUED]);
  const batch = { code: ExitCode.USAGE, err: expect.stringContaining('expected the ID of a job, got the batch b, which has 2\n') };
  for (const verb of ['show', 'download', 'retry']) expect(await dmesh('jobs', verb, 'b')).toMatchObject(batch);
  expect((await dmesh('jobs', 'download', 'b')).err).toContain('try: "dmesh jobs list --batch b" names its jobs\n');
  expect((await dmesh('jobs', 'delete', 'b')).err).toContain('try: "dmesh jobs delete --batch b" is for all of it, ');
  expect(await dmesh('jobs', 'show', 'c')).toMatchObject({ code: ExitCode.REFUSED, err: expect.stringContaining('there is no such job') });
});

test('what to do about a job without a picture depends on how it is', async () => {
  const { dmesh } = await start([FAILED, QUEUED]);
  expect((await dmesh('jobs', 'download', 'b-0')).err).toContain('"dmesh jobs retry JOB" runs it once more');
  expect((await dmesh('jobs', 'download', 'b-1')).err).toContain('"dmesh jobs watch JOB" waits for its end');
});

test('a list without jobs says whose it is', async () => {
  const { dmesh } = await start([]);
  expect((await dmesh('jobs', 'list')).out).toBe('There are no jobs.\n');
  expect((await dmesh('jobs', 'list', '--token', 'dm_a_1')).out).toBe('There are no jobs of yours: each tenant sees its own alone.\n');
  const filtered = await dmesh('jobs', 'list', '--token', 'dm_a_1', '--state', 'failed');
  expect(filtered.out).toBe('There are no such jobs of yours: each tenant sees its own alone.\n');
});

test('in a list details take what room the terminal has left, and show where they were cut', () => {
  const message = 'no node takes z-image-tiny, and that has been so for quite a while now';
  const waitingFor = { code: Code.UNAVAILABLE, reason: Reason.NO_NODES, message };
  const list = [jobs.Job.fromPartial({ jobId: 'j-1', state: QUEUED, position: 3, waitingFor, submittedAtMs: 1_700_000_000_000n })];
  expect(describeJobs(list, noPaint)).toContain(`${message}; again at`);
  const cut = describeJobs(list, noPaint, 120).split('\n');
  expect(cut[1]).toMatch(/position 3: NO_NODES: no node takes z-image.*…/);
  expect(Math.max(...cut.map((line) => line.length))).toBeGreaterThan(110);
  expect(Math.max(...cut.map((line) => line.length))).toBeLessThanOrEqual(120);
  expect(describeJobs(list, noPaint, 20)).toMatch(/position 3: NO_NODES: no node takes z-i…/);
});

test('each verb has a usage of its own', async () => {
  const { dmesh } = await start([]);
  const { out } = await dmesh('jobs', 'cancel', '--help');
  expect(out).toMatch(/^dmesh jobs cancel JOB \| --batch BATCH\n\n {2}cancel {6}also what runs.*\n\n {6}--json/);
  expect((await dmesh('help', 'jobs', 'cancel')).out).toBe(out);
  expect((await dmesh('jobs', '--help')).out).toContain('dmesh jobs retry JOB | --batch BATCH\ndmesh jobs delete');
});

test.each([
  [['jobs', 'cancel', 'b-0', '--batch', 'b'], 'expected either a JOB or --batch, got both'],
  [['jobs', 'delete', '--batch', ''], '--batch: expected the ID of a batch, got ""'],
  [['jobs', 'retry'], 'expected the ID of a job or --batch, got nothing'],
  [['jobs', 'constructor'], 'got "constructor"'],
])('%j is a wrong command line', async (args, fault) => {
  const { asked, dmesh } = await start([SUCCEEDED]);
  expect(await dmesh(...args)).toMatchObject({ code: ExitCode.USAGE, err: expect.stringContaining(fault) });
  expect(asked).toEqual([]);
});

test('a path that cannot be written to is told in the words of the option; missing folders are made', async () => {
  const { dmesh } = await start([SUCCEEDED]);
  const file = path.join(dir, 'file');
  await writeFile(file, '');
  const download = (out: string) => dmesh('jobs', 'download', 'b-0', '--out', out);
  const expected = (out: string) => `error: --out: expected a file that can be written, got ${JSON.stringify(out)}: `;
  for (const [out, obstacle] of [
    [dir, `${dir} is a folder`],
    [path.join(file, 'a.png'), `${file} is no folder`],
    [path.join(file, 'b', 'a.png'), `${path.join(file, 'b')} leads through a file`],
    [path.join(dir, `${'x'.repeat(300)}.png`), 'the name is too long'],
  ] as const) {
    expect(await download(out)).toMatchObject({ code: ExitCode.USAGE, err: expect.stringContaining(`${expected(out)}${obstacle}\n`) });
  }
  const picture = path.join(dir, 'a', 'b.png');
  expect(await download(picture)).toMatchObject({ code: ExitCode.OK });
  expect(await readFile(picture)).toEqual(png);
});

test('what is no folder is refused before anything is submitted, or started', async () => {
  const { asked, dmesh } = await start([]);
  const file = path.join(dir, 'prompts.txt');
  await writeFile(file, 'a red circle');
  const fault = `expected a folder that can be written to, got "${file}": ${file} is no folder\n`;
  const refused = (option: string) => ({ code: ExitCode.USAGE, err: expect.stringContaining(`error: ${option}: ${fault}`) });
  expect(await dmesh('submit', file, '--out', file)).toMatchObject(refused('--out'));
  expect(asked).toEqual([]);
  expect(await dmesh('up', '--keep', file, '--router-port', '0')).toMatchObject(refused('--keep'));
});
