/** dmesh jobs: what was submitted, how far it is, and what is to become of it. */
import path from 'node:path';
import { connectMesh, hasEnded, type Job, JobState, type JobsClient } from '#client';
import { jobs as contract } from '#contracts';
import { Arguments, MESH_OPTIONS, meshUsage } from '../arguments.js';
import { type Command, type Context, ExitCode } from '../command.js';
import { describeChange, describeJob, describeJobs, STATE_WORDS, STATES } from '../job-words.js';
import { extensionOf, REPLACED, savePicture } from '../pictures.js';
import { clip } from '../table.js';
import { CLEAR_LINE } from '../terminal.js';

const usage = `dmesh jobs list [--state S] [--batch BATCH] [--from TIME] [--to TIME] [--limit N]
dmesh jobs show JOB
dmesh jobs watch JOB
dmesh jobs cancel JOB | --batch BATCH
dmesh jobs retry JOB
dmesh jobs delete JOB
dmesh jobs download JOB [--out FILE]

  list        newest first: those in state S (${STATE_WORDS.join(', ')}; repeatable), of a
              batch, submitted from TIME on or before TIME, such as 2026-05-01 or 2026-05-01T12:00Z
  watch       until it has ended; exit code 0 when it succeeded
  cancel      also what runs: its GPU is free within one step
  retry       once more, for a job that failed, expired or was cancelled
  delete      the job and its pictures; one that runs is cancelled first
  download    its pictures, as FILE (several: FILE-1, FILE-2, …); default named after the job

      --limit N      of list; default 50
      --json         every field, as JSON: one object, or one a line
${meshUsage({ indent: 6, at: 21 })}
`;

export const jobs: Command = { name: 'jobs', summary: 'list, show, watch, cancel, retry, delete or download jobs', usage, run };

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
  readonly read: Arguments;
  readonly context: Context;
}

const VERBS: Readonly<Record<string, { readonly takesJob: boolean; readonly run: (parts: Parts) => Promise<ExitCode> }>> = {
  list: { takesJob: false, run: list },
  show: { takesJob: true, run: async (parts) => tell(parts, await parts.client.get(parts.jobId, { signal: parts.context.signal })) },
  watch: { takesJob: true, run: watch },
  cancel: { takesJob: true, run: cancel },
  retry: { takesJob: true, run: async (parts) => tell(parts, await parts.client.retry(parts.jobId, { signal: parts.context.signal })) },
  delete: { takesJob: true, run: forget },
  download: { takesJob: true, run: download },
};

async function run(args: readonly string[], context: Context): Promise<ExitCode> {
  const read = new Arguments(args, OPTIONS);
  const [name] = read.positionals;
  const verb = name === undefined ? undefined : VERBS[name];
  if (name === undefined || !verb) {
    read.fault(`expected ${Object.keys(VERBS).join(', ')}, got ${name === undefined ? 'nothing' : JSON.stringify(name)}`);
    read.check();
    return ExitCode.USAGE;
  }
  const takesJob = verb.takesJob && !(name === 'cancel' && read.text('batch') !== undefined);
  const [, jobId = ''] = read.expectPositionals(takesJob ? [name, 'the ID of a job'] : [name]);
  // Read here as well, so that what is wrong is said before anybody is called.
  if (name === 'list') filterOf(read);
  const at = read.mesh(context.env);
  read.check();
  const mesh = connectMesh(at);
  try {
    return await verb.run({ client: mesh.jobs, jobId, read, context });
  } finally {
    mesh.close();
  }
}

async function list({ client, read, context }: Parts): Promise<ExitCode> {
  const { terminal, signal } = context;
  const { limit, ...filter } = filterOf(read);
  const found: Job[] = [];
  for await (const job of client.list(filter, { signal })) {
    found.push(job);
    if (found.length >= limit) break;
  }
  if (read.flag('json')) for (const job of found) terminal.out(asJson(job));
  else terminal.out(describeJobs(found, terminal.paint));
  return ExitCode.OK;
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
  const { client, jobId, read, context } = parts;
  const { terminal, signal } = context;
  const batchId = read.text('batch');
  if (batchId === undefined) return tell(parts, await client.cancel(jobId, { signal }));
  const cancelledCount = await client.cancelBatch(batchId, { signal });
  terminal.out(read.flag('json') ? `${JSON.stringify({ cancelledCount })}\n` : `${cancelledCount} of ${batchId} cancelled\n`);
  return ExitCode.OK;
}

async function forget({ client, jobId, context }: Parts): Promise<ExitCode> {
  await client.delete(jobId, { signal: context.signal });
  context.terminal.out(`${jobId} is forgotten\n`);
  return ExitCode.OK;
}

async function download({ client, jobId, read, context }: Parts): Promise<ExitCode> {
  const { terminal, signal } = context;
  const { result } = await client.get(jobId, { signal });
  // Without a result the mesh says why there is none.
  const count = Math.max(1, result?.images.length ?? 0);
  for (let imageIndex = 0; imageIndex < count; imageIndex++) {
    const picture = await client.download(jobId, { imageIndex, signal });
    const { dir, name, ext } = path.parse(read.text('out') ?? `${jobId}${extensionOf(picture.mimeType)}`);
    const file = path.join(dir, `${name}${count > 1 ? `-${imageIndex + 1}` : ''}${ext}`);
    const replaced = await savePicture(file, picture.data);
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
