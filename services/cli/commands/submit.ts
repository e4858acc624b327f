/** dmesh submit: a file of prompts becomes a folder of pictures, now or later. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { connectMesh, StatusError } from '#client';
import { printable } from '#core';
import { systemClock } from '#runtime';
import { Arguments, MESH_OPTIONS, meshUsage } from '../arguments.js';
import { type Collected, type CollectProgress, collectBatches, isAway, restOf, submitBatches } from '../batch-collect.js';
import { type PlannedBatch, planBatches } from '../batch-plan.js';
import { type Command, type Context, ExitCode } from '../command.js';
import { failureOf, stateWord } from '../job-words.js';
import { duration } from '../node-words.js';
import { writingTo } from '../path-fault.js';
import { FORMATS, REPLACED } from '../pictures.js';
import { bar } from '../progress-bar.js';
import { REQUEST_OPTIONS, readRequest } from '../request-arguments.js';
import { CLEAR_LINE } from '../terminal.js';

const usage = `dmesh submit PROMPTS.txt --out FOLDER [options]

  One job for each line of the file; the mesh keeps them, whatever happens to this command. Waits and
  fetches each picture as it is drawn. Given again it goes on: the same file (all its lines) with the same
  options is the same jobs, and only what is missing is fetched, or drawn again when the mesh does not keep it
  any more; with a line more or less it is other jobs. It tells when a picture takes the place of another
  file. Whose picture lies in the folder is noted there in .dmesh-jobs.jsonl.

      --out FOLDER     where pictures go: 1-words-of-the-prompt.png, 2-…; made where it is missing
      --no-wait        leaves when the jobs are on disk; the same command without it fetches the pictures
      --expire T       jobs not drawn by then end as EXPIRED, such as 90m; default the mesh's own
      --webhook URL    is told of each job that has ended
      --seed N         of the first line; each further one the next; default: of the lines themselves
      --priority P     high, normal or low; default low
      --steps N, --size WxH, --lora NAME=S, --format F, --count N, --model NAME, --negative TEXT,
      --guidance X     as for "dmesh generate", for all lines
${meshUsage({ indent: 6, at: 23 })}
      --json           tells what came of it as one JSON object

  Ctrl-C stops waiting, not the jobs: "dmesh jobs" shows and cancels them.
`;

export const submit: Command = { name: 'submit', summary: 'have a file of prompts drawn, now or later', usage, run };

const OPTIONS = {
  ...REQUEST_OPTIONS,
  ...MESH_OPTIONS,
  out: { type: 'string', short: 'o' },
  'no-wait': { type: 'boolean' },
  expire: { type: 'string' },
  webhook: { type: 'string' },
  json: { type: 'boolean' },
} as const;

async function run(args: readonly string[], context: Context): Promise<ExitCode> {
  const { env, terminal, signal } = context;
  const read = new Arguments(args, OPTIONS);
  const [file = ''] = read.expectPositionals(['a file of PROMPTS']);
  const dir = read.text('out') ?? '';
  const waits = !read.flag('no-wait');
  if (dir === '' && waits) read.fault('--out: expected the folder for the pictures, got nothing');
  const format = read.choice('format', FORMATS);
  const common = { ...readRequest(read), ...(format === undefined ? {} : { format }) };
  const settings = { expireAfterMs: read.durationMs('expire'), webhookUrl: read.text('webhook') };
  const plan = file === '' ? [] : planBatches(await readPrompts(file, read), common, settings);
  if (file !== '' && plan.length === 0) read.fault(`${file}: expected a prompt on each line, got none`);
  const at = read.mesh(env);
  read.check();

  const mesh = connectMesh(at);
  const show = showIn(context);
  let areKept = false;
  const onProgress = (progress: CollectProgress) => {
    areKept = true; // told from when the mesh has accepted jobs
    show(progress);
  };
  const options = { jobs: mesh.jobs, clock: systemClock, signal, dir, settings, onProgress };
  try {
    if (!waits) {
      const { rest } = await restOf(plan, dir);
      const unsent = await submitBatches(rest, options);
      const words = rest.length === 0 ? `every picture is in ${path.join(dir, '.')}\n` : describeSubmitted(rest, unsent);
      terminal.out(read.flag('json') ? `${JSON.stringify({ batches: idsOf(plan) })}\n` : words);
      return unsent.length === 0 ? ExitCode.OK : ExitCode.UNAVAILABLE;
    }
    const folder = { option: '--out', expects: 'a folder that can be written to', path: dir };
    const collected = await writingTo(folder, () => collectBatches(plan, options));
    if (terminal.interactive) terminal.err(CLEAR_LINE);
    terminal.out(read.flag('json') ? `${JSON.stringify(asJson(plan, collected))}\n` : describeCollected(dir, collected));
    return collected.failed.length + collected.gone.length === 0 ? ExitCode.OK : ExitCode.FAILED;
  } catch (error) {
    if (terminal.interactive) terminal.err(CLEAR_LINE);
    if (signal.aborted || (areKept && isAway(error)))
      terminal.err('the jobs go on; the same command again fetches what is drawn by then\n');
    throw error instanceof StatusError ? inOurWords(error) : error;
  } finally {
    mesh.close();
  }
}

async function readPrompts(file: string, read: Arguments): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    read.fault(
      `${file}: expected a file of prompts that can be read: ${error instanceof Error && 'code' in error ? error.code : String(error)}`,
    );
    return 'nothing';
  }
}

/** The mesh counts items of a batch; here all have the same options, and a line of the file each. */
function inOurWords(error: StatusError): StatusError {
  const { violations = [] } = error.details;
  if (violations.length === 0) return error;
  const inWords = violations.map(({ field, description }) => {
    const [, item = '', own] = /^items\[(\d+)\]\.request\.(.+)$/.exec(field) ?? [];
    if (own === undefined) return { field: OPTION_FIELDS[field] ?? field, description };
    return own === 'prompt' ? { field: '', description: `line ${Number(item) + 1}: ${description}` } : { field: own, description };
  });
  const seen = new Set<string>();
  const distinct = inWords.filter(({ field, description }) => {
    const text = `${field}\n${description}`;
    return !seen.has(text) && seen.add(text);
  });
  const { code, reason, message } = error;
  return new StatusError({ code, reason, message, violations: distinct, cause: error });
}

const OPTION_FIELDS: Readonly<Record<string, string>> = { 'options.webhook_url': 'webhook', 'options.expire_after_ms': 'expire' };

function showIn({ terminal }: Context): (progress: CollectProgress) => void {
  const { columnCount, interactive, err } = terminal;
  let wasAway = false;
  return ({ jobCount, unsentCount, runningCount, endedCount, fileCount, etaMs, trouble }) => {
    const isNews = wasAway !== (trouble !== undefined);
    wasAway = trouble !== undefined;
    if (!interactive) {
      if (isNews) err(trouble ? `${trouble.reason}: ${printable(trouble.message)}; trying again\n` : 'the mesh answers again\n');
      return;
    }
    const done = `${endedCount} of ${jobCount} done`;
    // What matters most comes first; what has no room is left out.
    const parts = trouble
      ? [done, ', trying again', `: ${trouble.reason}`]
      : [
          `${bar(endedCount / jobCount)} ${done}`,
          `, ${fileCount} saved`,
          etaMs > 0 ? `, about ${duration(etaMs)}` : '',
          `, ${runningCount} running`,
          unsentCount > 0 ? `, ${unsentCount} not accepted yet` : '',
        ];
    while (parts.length > 1 && parts.join('').length >= columnCount) parts.pop();
    err(`${CLEAR_LINE}${parts.join('').slice(0, columnCount - 1)}`);
  };
}

function idsOf(plan: readonly PlannedBatch[]): string[] {
  return plan.map(({ batchId }) => batchId);
}

function describeSubmitted(plan: readonly PlannedBatch[], unsent: readonly PlannedBatch[]): string {
  const accepted = plan.filter((batch) => !unsent.includes(batch));
  const rows = accepted.map(({ batchId, jobs }) => `${batchId}  ${jobs.length} ${jobs.length === 1 ? 'job' : 'jobs'}\n`);
  const rest = unsent.reduce((sum, { jobs }) => sum + jobs.length, 0);
  return [...rows, ...(rest > 0 ? [`${rest} more found no room; give the command again later\n`] : [])].join('');
}

function describeCollected(dir: string, { fetched, replaced, kept, failed, gone }: Collected): string {
  const pictures = fetched.length + kept.length;
  const were = kept.length > 0 ? `, ${kept.length} of them were there` : '';
  const lines = [`${pictures} ${pictures === 1 ? 'picture' : 'pictures'} in ${path.join(dir, '.')}${were}`];
  for (const file of replaced) lines.push(`${file}: ${REPLACED}`);
  for (const { planned, job } of failed) lines.push(`${planned.name}: ${stateWord(job.state)}${failureOf(job)} (${job.jobId})`);
  for (const planned of gone) lines.push(`${planned.name}: the mesh does not know it any more (${planned.jobId})`);
  if (failed.length > 0) lines.push('"dmesh jobs retry JOB" runs one once more; then give this command again');
  return `${lines.map(printable).join('\n')}\n`;
}

function asJson(plan: readonly PlannedBatch[], { fetched, replaced, kept, failed, gone }: Collected): object {
  return {
    batches: idsOf(plan),
    fetched,
    replaced,
    kept,
    failed: failed.map(({ planned: { jobId, name }, job }) => ({ jobId, name, state: stateWord(job.state), reason: job.failure?.reason })),
    gone: gone.map(({ jobId }) => jobId),
  };
}
