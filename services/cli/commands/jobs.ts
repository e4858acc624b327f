/** dmesh jobs: what was submitted, how far it is, and what is to become of it. */
import path from 'node:path';
import { connectMesh, hasEnded, type Job, type JobFilter, JobState, type JobsClient, StatusError } from '#client';
import { jobs as contract } from '#contracts';
import { printable, Reason } from '#core';
import { Arguments, MESH_OPTIONS, meshUsage, UsageError } from '../arguments.js';
import { type BatchChanged, changeBatch } from '../batch-change.js';
import { type Command, type Context, ExitCode } from '../command.js';
import { describeChange, describeJob, describeJobs, STATE_WORDS, STATES } from '../job-words.js';
import { writingTo } from '../path-fault.js';
import { extensionOf, REPLACED, savePicture } from '../pictures.js';
import { clip } from '../table.js';
import { CLEAR_LINE } from '../terminal.js';

const OPTIONS = {
  ...MESH_OPTIONS,
  state: { type: 'string', multiple: true },
  batch: { type: 'string' },
  from: { type: 'string' },
  to: { type: 'string' },
  limit: { type: 'string' },
  out: { type: 'string', short: 'o' },
  json: { type: 'boolean' },
} as const;

/** What a verb works with: `jobId` is empty where it takes none. */
interface Parts {
  readonly client: JobsClient;
  readonly jobId: string;
  readonly batchId: string | undefined;
  /** Whether who asks is known by it; otherwise all are one tenant. */
  readonly hasToken: boolean;
  readonly read: Arguments;
  readonly context: Context;
}

interface Verb {
  /** As it is typed, and what it does: lines of its usage. */
  readonly typed: string;
  readonly does: readonly string[];
  readonly options?: string;
  readonly takes: 'nothing' | 'a job' | 'a job or a batch';
  readonly run: (parts: Parts) => Promise<ExitCode>;
}

const VERBS: ReadonlyMap<string, Verb> = new Map<string, Verb>([
  [
    'list',
    {
      typed: 'list [--state S] [--batch BATCH] [--from TIME] [--to TIME] [--limit N]',
      does: [
        `yours, newest first: those in state S (${STATE_WORDS.join(', ')};`,
        'repeatable), of a batch, submitted from TIME on or before TIME, such as 2026-05-01 or 2026-05-01T12:00Z',
      ],
      options: '      --limit N      of list; default 50\n',
      takes: 'nothing',
      run: list,
    },
  ],
  [
    'show',
    {
      typed: 'show JOB',
      does: ['how it is, what was asked for, and what came of it'],
      takes: 'a job',
      run: async (parts) => tell(parts, await parts.client.get(parts.jobId, { signal: parts.context.signal })),
    },
  ],
  ['watch', { typed: 'watch JOB', does: ['until it has ended; exit code 0 when it succeeded'], takes: 'a job', run: watch }],
  [
    'cancel',
    {
      typed: 'cancel JOB | --batch BATCH',
      does: ['also what runs: its GPU is free within one step'],
      takes: 'a job or a batch',
      run: cancel,
    },
  ],
  [
    'retry',
    {
      typed: 'retry JOB | --batch BATCH',
      does: ['once more, for a job that failed, expired or was cancelled; of a batch, all that did'],
      takes: 'a job or a batch',
      run: retry,
    },
  ],
  [
    'delete',
    {
      typed: 'delete JOB | --batch BATCH',
      does: ['the job and its pictures; one that runs is cancelled first. Of a batch, all that have ended'],
      takes: 'a job or a batch',
      run: forget,
    },
  ],
  [
    'download',
    {
      typed: 'download JOB [--out FILE]',
      does: ['its pictures, as FILE (several: FILE-1, FILE-2, …); default named after the job'],
      takes: 'a job',
      run: download,
    },
  ],
]);

function usageOf(verbs: readonly (readonly [string, Verb])[]): string {
  const typed = verbs.map(([, verb]) => `dmesh jobs ${verb.typed}\n`);
  const does = verbs.map(([name, verb]) => `  ${name.padEnd(12)}${verb.does.join(`\n${' '.repeat(14)}`)}\n`);
  const options = verbs.map(([, verb]) => verb.options ?? '');
  const common = `      --json         every field, as JSON: one object, or one a line\n${meshUsage({ indent: 6, at: 21 })}\n`;
  return [...typed, '\n', ...does, '\n', ...options, common].join('');
}

export const jobs: Command = {
  name: 'jobs',
  summary: 'list, show, watch, cancel, retry, delete or download jobs',
  usage: usageOf([...VERBS]),
  usageOf: (args) => {
    const asked = [...VERBS].filter(([name]) => args.includes(name));
    return asked.length === 1 ? usageOf(asked) : undefined;
  },
  run,
};

async function run(args: readonly string[], context: Context): Promise<ExitCode> {
  const read = new Arguments(args, OPTIONS);
  const [name] = read.positionals;
  const verb = name === undefined ? undefined : VERBS.get(name);
  if (name === undefined || !verb) {
    read.fault(`expected ${[...VERBS.keys()].join(', ')}, got ${name === undefined ? 'nothing' : JSON.stringify(name)}`);
    read.check();
    return ExitCode.USAGE;
  }
  const batchId = read.parsed('batch', 'the ID of a batch', (text) => text || undefined);
  const jobId = readJobId(read, name, verb);
  // Read here as well, so that what is wrong is said before anybody is called.
  if (name === 'list') filterOf(read);
  const at = read.mesh(context.env);
  read.check();
  const mesh = connectMesh(at);
  const parts = { client: mesh.jobs, jobId, batchId, hasToken: at.token !== undefined, read, context };
  try {
    return await verb.run(parts);
  } catch (error) {
    const isUnknown = error instanceof StatusError && error.reason === Reason.UNKNOWN_JOB;
    throw isUnknown && jobId !== '' ? await unlessBatch(error, parts, name) : error;
  } finally {
    mesh.close();
  }
}

/** '' where there is none. */
function readJobId(read: Arguments, name: string, { takes }: Verb): string {
  const hasBatch = takes === 'a job or a batch' && read.text('batch') !== undefined;
  if (hasBatch && read.positionals.length > 1) read.fault('expected either a JOB or --batch, got both');
  else if (takes === 'nothing' || hasBatch) read.expectPositionals([name]);
  else read.expectPositionals([name, takes === 'a job' ? 'the ID of a job' : 'the ID of a job or --batch']);
  return takes === 'nothing' || hasBatch ? '' : (read.positionals[1] ?? '');
}

/** Where there is no such job, the name may be that of a batch: submit prints those. */
async function unlessBatch(unknown: StatusError, { client, jobId, context }: Parts, name: string): Promise<Error> {
  const batch = await client.getBatch(jobId, { signal: context.signal }).catch(() => undefined);
  if (!batch) return unknown;
  const listed = `"dmesh jobs list --batch ${jobId}" names its jobs`;
  const whole = `"dmesh jobs ${name} --batch ${jobId}" is for all of it`;
  const hint = VERBS.get(name)?.takes === 'a job or a batch' ? `${whole}, ${listed}` : listed;
  return new UsageError([`expected the ID of a job, got the batch ${jobId}, which has ${batch.jobCount}`], hint);
}

async function list({ client, hasToken, read, context }: Parts): Promise<ExitCode> {
  const { terminal, signal } = context;
  const { limit, ...filter } = filterOf(read);
  const found: Job[] = [];
  for await (const job of client.list(filter, { signal })) {
    found.push(job);
    if (found.length >= limit) break;
  }
  if (read.flag('json')) for (const job of found) terminal.out(asJson(job));
  else if (found.length > 0) terminal.out(describeJobs(found, terminal.paint, terminal.screen?.().columnCount));
  else
    terminal.out(
      `There are no ${isFiltered(filter) ? 'such jobs' : 'jobs'}${hasToken ? ' of yours: each tenant sees its own alone' : ''}.\n`,
    );
  return ExitCode.OK;
}

function isFiltered({ states, batchId, submittedFromMs, submittedToMs }: JobFilter): boolean {
  return (states ?? []).length > 0 || [batchId, submittedFromMs, submittedToMs].some((limit) => limit !== undefined);
}

function filterOf(read: Arguments) {
  const wanted = read.list('state').flatMap((text) => {
    const word = STATE_WORDS.find((each) => each === text);
    if (word === undefined) read.fault(`--state: expected one of ${STATE_WORDS.join(', ')}, got ${JSON.stringify(text)}`);
    return word === undefined ? [] : [STATES[word]];
  });
  const time = (name: string) =>
    read.parsed(name, 'a time such as 2026-05-01 or 2026-05-01T12:00Z', (text) => {
      const epochMs = /^\d{4}-/.test(text) ? Date.parse(text) : Number.NaN;
      return Number.isNaN(epochMs) ? undefined : epochMs;
    });
  return {
    states: wanted,
    batchId: read.text('batch'),
    submittedFromMs: time('from'),
    submittedToMs: time('to'),
    limit: read.integer('limit', { min: 1, max: 1_000_000 }) ?? 50,
  };
}

async function watch({ client, jobId, read, context }: Parts): Promise<ExitCode> {
  const { terminal, signal } = context;
  let last: Job | undefined;
  for await (const job of client.watch(jobId, { signal })) {
    last = job;
    const text = describeChange(job, terminal.paint);
    if (terminal.interactive && hasEnded(job)) terminal.err(CLEAR_LINE);
    if (read.flag('json')) terminal.out(asJson(job));
    else if (terminal.interactive && !hasEnded(job)) terminal.err(`${CLEAR_LINE}${clip(text, terminal.columnCount - 1)}`);
    else terminal.out(`${text}\n`);
  }
  return last?.state === JobState.SUCCEEDED ? ExitCode.OK : ExitCode.FAILED;
}

async function cancel(parts: Parts): Promise<ExitCode> {
  const { client, jobId, batchId, read, context } = parts;
  const { terminal, signal } = context;
  if (batchId === undefined) return tell(parts, await client.cancel(jobId, { signal }));
  const cancelledCount = await client.cancelBatch(batchId, { signal });
  terminal.out(read.flag('json') ? `${JSON.stringify({ cancelledCount })}\n` : `${cancelledCount} of ${batchId} cancelled\n`);
  return ExitCode.OK;
}

async function retry(parts: Parts): Promise<ExitCode> {
  const { client, jobId, batchId, context } = parts;
  const change = (id: string) => client.retry(id, { signal: context.signal });
  if (batchId === undefined) return tell(parts, await change(jobId));
  const isFor = (job: Job) => hasEnded(job) && job.state !== JobState.SUCCEEDED;
  return tellBatch(parts, 'queued again', await changeBatch({ client, batchId, isFor, change, signal: context.signal }));
}

async function forget(parts: Parts): Promise<ExitCode> {
  const { client, jobId, batchId, context } = parts;
  const change = (id: string) => client.delete(id, { signal: context.signal });
  if (batchId !== undefined) {
    return tellBatch(parts, 'forgotten', await changeBatch({ client, batchId, isFor: hasEnded, change, signal: context.signal }));
  }
  await change(jobId);
  context.terminal.out(`${jobId} is forgotten\n`);
  return ExitCode.OK;
}

function tellBatch({ batchId = '', read, context: { terminal } }: Parts, became: string, changed: BatchChanged): ExitCode {
  const { changedCount, jobCount, refused } = changed;
  if (read.flag('json')) terminal.out(`${JSON.stringify(changed)}\n`);
  else {
    for (const { jobId, reason, message } of refused) terminal.err(`${jobId}: ${reason}: ${printable(message)}\n`);
    terminal.out(`${changedCount} of ${jobCount} of ${batchId} ${became}\n`);
  }
  return refused.length === 0 ? ExitCode.OK : ExitCode.FAILED;
}

async function download({ client, jobId, read, context }: Parts): Promise<ExitCode> {
  const { terminal, signal } = context;
  const { result } = await client.get(jobId, { signal });
  // Without a result the mesh says why there is none.
  const count = Math.max(1, result?.images.length ?? 0);
  for (let imageIndex = 0; imageIndex < count; imageIndex++) {
    const picture = await client.download(jobId, { imageIndex, signal });
    const typed = read.text('out') ?? `${jobId}${extensionOf(picture.mimeType)}`;
    const { dir, name, ext } = path.parse(typed);
    const file = path.join(dir, `${name}${count > 1 ? `-${imageIndex + 1}` : ''}${ext}`);
    const replaced = await writingTo({ option: '--out', expects: 'a file that can be written', path: typed }, () =>
      savePicture(file, picture.data),
    );
    const instead = replaced ? terminal.paint('dim', `, ${REPLACED}`) : '';
    terminal.out(
      read.flag('json')
        ? `${JSON.stringify({ file, sha256: picture.sha256, replaced })}\n`
        : `${file}  ${picture.data.length} bytes${instead}\n`,
    );
  }
  return ExitCode.OK;
}

function tell({ read, context: { terminal } }: Parts, job: Job): ExitCode {
  terminal.out(read.flag('json') ? asJson(job) : describeJob(job, terminal.paint));
  return ExitCode.OK;
}

function asJson(job: Job): string {
  return `${JSON.stringify(contract.Job.toJSON(job))}\n`;
}
