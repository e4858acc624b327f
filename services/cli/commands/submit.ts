/** dmesh submit: a file of prompts becomes a folder of pictures, now or later. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { connectMesh, hasEnded, type Job, JobState } from '#client';
import { Code, printable, Reason } from '#core';
import { systemClock } from '#runtime';
import { Arguments, MESH_OPTIONS, meshUsage } from '../arguments.js';
import { type Collected, type CollectProgress, collectJobs, type FailedJob, handOverRest, isAway } from '../batch-collect.js';
import { type PlannedJob, planJobs } from '../batch-plan.js';
import type { HandedOver, LostJob } from '../batch-submit.js';
import { type Command, type Context, ExitCode } from '../command.js';
import { failureOf, stateWord } from '../job-words.js';
import { duration } from '../node-words.js';
import { writingTo } from '../path-fault.js';
import { FORMATS, REPLACED } from '../pictures.js';
import { bar } from '../progress-bar.js';
import { REQUEST_OPTIONS, readRequest } from '../request-arguments.js';
import { clip } from '../table.js';
import { CLEAR_LINE } from '../terminal.js';

const usage = `dmesh submit PROMPTS.txt --out FOLDER [options]

  One job for each line of the file; the mesh keeps them, whatever happens to this command. Waits and
  fetches each picture as it is drawn. Given again it goes on: the same line with the same options is the
  same job, wherever it stands in the file (of equal lines: the first, the second, …). So what lies in the
  folder whole stays, under the number its line has now; what is missing there is fetched, and drawn again
  when the mesh does not know the job any more; of a changed file only the lines that are new are drawn.
  It tells when a picture takes the place of another file, and which are of lines that are no more. Whose
  picture lies in the folder is noted there in .dmesh-jobs.jsonl.

      --out FOLDER     where pictures go: 1-words-of-the-prompt.png, 2-…; made where it is missing
      --no-wait        leaves when the jobs are on disk, and tells which are not going to be drawn and why;
                       the same command without it fetches the pictures
      --expire T       jobs not drawn by then end as EXPIRED, such as 90m; default the mesh's own
      --webhook URL    is told of each job that has ended
      --seed N         of the first line; each further one the next, so with a line more or less those after
                       it are others; default: of the lines themselves
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
  const plan = file === '' ? [] : planJobs(await readPrompts(file, read), common, settings);
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
  const options = { jobs: mesh.jobs, clock: systemClock, signal, settings };
  try {
    if (!waits) {
      const handed = await handOverRest(plan, dir, options);
      terminal.out(read.flag('json') ? `${JSON.stringify(handedAsJson(plan, handed))}\n` : describeHanded(dir, handed));
      if (badEndsOf(handed).length + handed.lost.length > 0) return ExitCode.FAILED;
      return handed.unsent.length === 0 ? ExitCode.OK : ExitCode.UNAVAILABLE;
    }
    const folder = { option: '--out', expects: 'a folder that can be written to', path: dir };
    const collected = await writingTo(folder, () => collectJobs(plan, { ...options, dir, onProgress }));
    if (terminal.interactive) terminal.err(CLEAR_LINE);
    terminal.out(read.flag('json') ? `${JSON.stringify(asJson(plan, collected))}\n` : describeCollected(dir, collected));
    return collected.failed.length + collected.gone.length === 0 ? ExitCode.OK : ExitCode.FAILED;
  } catch (error) {
    if (terminal.interactive) terminal.err(CLEAR_LINE);
    if (signal.aborted || (areKept && isAway(error)))
      terminal.err('the jobs go on; the same command again fetches what is drawn by then\n');
    throw error;
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

function showIn({ terminal }: Context): (progress: CollectProgress) => void {
  const { columnCount, interactive, err } = terminal;
  let wasAway = false;
  let toldReason: string | undefined;
  return ({ jobCount, unsentCount, runningCount, endedCount, fileCount, etaMs, trouble, waitingFor }) => {
    const isNews = wasAway !== (trouble !== undefined);
    wasAway = trouble !== undefined;
    const why = waitingFor && printable(failureOf({ failure: waitingFor }));
    if (!interactive) {
      if (isNews) err(trouble ? `${trouble.reason}: ${printable(trouble.message)}; trying again\n` : 'the mesh answers again\n');
      // Its words may have figures in them; and a busy mesh has room now and then.
      if (waitingFor && why && waitingFor.reason !== toldReason) err(`${endedCount} of ${jobCount} done, the next waits${why}\n`);
      toldReason = waitingFor?.reason ?? toldReason;
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
    const waits = why && !trouble ? `, the next waits${why}` : '';
    err(`${CLEAR_LINE}${clip(`${parts.join('')}${waits}`, columnCount - 1)}`);
  };
}

function badEndsOf({ known }: HandedOver): FailedJob[] {
  return known.flatMap(({ planned, job }) => (job && hasEnded(job) && job.state !== JobState.SUCCEEDED ? [{ planned, job }] : []));
}

function drawnOf({ known }: HandedOver): PlannedJob[] {
  return known.flatMap(({ planned, job }) => (job?.state === JobState.SUCCEEDED ? [planned] : []));
}

/** Those that wait or run, by batch. */
function waitingOf({ known }: HandedOver): Map<string, PlannedJob[]> {
  const batches = new Map<string, PlannedJob[]>();
  for (const { planned, batchId, job } of known) {
    if (job && hasEnded(job)) continue;
    const jobs = batches.get(batchId) ?? [];
    batches.set(batchId, jobs);
    jobs.push(planned);
  }
  return batches;
}

function describeHanded(dir: string, handed: HandedOver & { keptCount: number }): string {
  const { keptCount, lost, unsent } = handed;
  const [drawn, failed] = [drawnOf(handed), badEndsOf(handed)];
  const lines = [...waitingOf(handed)].map(([batchId, { length }]) => `${batchId}  ${counted(length, 'job')}`);
  if (drawn.length > 0) lines.push(`${counted(drawn.length, 'job')} drawn already, to be fetched without --no-wait`);
  const isAll = lines.length + failed.length + lost.length + unsent.length === 0;
  if (keptCount > 0) {
    const folder = path.join(dir, '.');
    lines.push(isAll ? `every picture is in ${folder}` : `${counted(keptCount, 'line')} drawn and in ${folder}`);
  }
  lines.push(...badEnds(failed, lost));
  if (unsent.length > 0) lines.push(`${unsent.length} more found no room; give the command again later`);
  return `${lines.map(printable).join('\n')}\n`;
}

function handedAsJson(plan: readonly PlannedJob[], handed: HandedOver & { keptCount: number }): object {
  return {
    batches: [...new Set(handed.known.map(({ batchId }) => batchId))],
    jobs: idsOf(plan),
    waiting: idsOf([...waitingOf(handed).values()].flat()),
    drawn: idsOf(drawnOf(handed)),
    keptCount: handed.keptCount,
    failed: badEndsOf(handed).map(failedAsJson),
    gone: idsOf(handed.lost.map(({ planned }) => planned)),
    unsent: idsOf(handed.unsent),
  };
}

/** The folder may have been that of other files, too. */
const TOLD_OLDER_COUNT = 10;

function describeCollected(dir: string, { fetched, replaced, kept, renamed, failed, gone, older }: Collected): string {
  const were = kept.length > 0 ? `, ${kept.length} of them were there` : '';
  const others = renamed.length > 0 ? ` (${renamed.length} under another name)` : '';
  const lines = [`${counted(fetched.length + kept.length, 'picture')} in ${path.join(dir, '.')}${were}${others}`];
  for (const file of replaced) lines.push(`${file}: ${REPLACED}`);
  for (const file of older.slice(0, TOLD_OLDER_COUNT)) lines.push(`${file}: of another line than this file has`);
  if (older.length > TOLD_OLDER_COUNT) lines.push(`and ${older.length - TOLD_OLDER_COUNT} more such pictures`);
  return `${[...lines, ...badEnds(failed, gone)].map(printable).join('\n')}\n`;
}

/** What came to no picture, and what to do about it. */
function badEnds(failed: readonly FailedJob[], lost: readonly LostJob[]): string[] {
  const told = ({ name, line, jobId }: PlannedJob, what: string) => `${name}: ${what} (line ${line}, ${jobId})`;
  const lines = [
    ...failed.map(({ planned, job }) => told(planned, `${stateWord(job.state)}${failureOf(job)}`)),
    ...lost.map(({ planned, why }) => told(planned, why)),
  ];
  const own = failed.filter(({ job }) => isOfLine(job));
  const reasons = [...new Set(own.map(({ job }) => job.failure?.reason))].join(', ');
  if (own.length > 0) lines.push(`${reasons}: another try ends alike; correct the line or the options, and give this command again`);
  const which = own.length > 0 ? 'of the others ' : '';
  if (failed.length > own.length) lines.push(`${which}"dmesh jobs retry JOB" runs one once more; then give this command again`);
  return lines;
}

/** Whether it fails however often it is tried. */
function isOfLine({ failure }: Job): boolean {
  return (
    failure !== undefined && (failure.code === Code.INVALID_ARGUMENT || failure.code === Code.NOT_FOUND || failure.reason === Reason.POISON)
  );
}

function asJson(plan: readonly PlannedJob[], { fetched, replaced, kept, renamed, failed, gone, older, batchIds }: Collected): object {
  return {
    batches: batchIds,
    jobs: idsOf(plan),
    fetched,
    replaced,
    kept,
    renamed,
    failed: failed.map(failedAsJson),
    gone: idsOf(gone.map(({ planned }) => planned)),
    older,
  };
}

function failedAsJson({ planned: { jobId, line, name }, job }: FailedJob): object {
  return { jobId, line, name, state: stateWord(job.state), reason: job.failure?.reason };
}

function idsOf(jobs: readonly PlannedJob[]): string[] {
  return jobs.map(({ jobId }) => jobId);
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}
