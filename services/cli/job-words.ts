/** How a job is, in few words; the same in every list. */
import { type Job, JobState } from '#client';
import { generation, jobs } from '#contracts';
import { printable } from '#core';
import { duration } from './node-words.js';
import { shortened, table, widthOf } from './table.js';
import type { Colour, Paint } from './terminal.js';

export const STATES = {
  queued: JobState.QUEUED,
  running: JobState.RUNNING,
  succeeded: JobState.SUCCEEDED,
  failed: JobState.FAILED,
  cancelled: JobState.CANCELLED,
  expired: JobState.EXPIRED,
} as const;
export type StateWord = keyof typeof STATES;
export const STATE_WORDS = ['queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired'] as const satisfies readonly StateWord[];

const COLOURS: Readonly<Record<StateWord, Colour>> = {
  queued: 'dim',
  running: 'cyan',
  succeeded: 'green',
  failed: 'red',
  cancelled: 'yellow',
  expired: 'yellow',
};

export function stateWord(state: JobState): string {
  return STATE_WORDS.find((word) => STATES[word] === state) ?? 'unknown';
}

/** " after 2 attempts: REASON: sentence" of a job that ended badly; '' of others. */
export function failureOf({ failure }: Pick<Job, 'failure'>): string {
  return failure ? `: ${failure.reason}: ${failure.message}` : '';
}

/** `columnCount`: of the terminal; without one nothing is cut. */
export function describeJobs(list: readonly Job[], paint: Paint, columnCount = Number.POSITIVE_INFINITY): string {
  const rows = (detailsOf: (job: Job) => string) =>
    list.map((job) => [
      job.jobId,
      painted(job, paint),
      detailsOf(job),
      priorityOf(job),
      String(job.attempt),
      timeOf(job.submittedAtMs),
      job.batchId,
    ]);
  const others = table(
    HEAD,
    rows(() => ''),
  );
  const taken = Math.max(...others.split('\n').map(widthOf)) - widthOf('DETAILS');
  const room = Math.max(LEAST_DETAILS, columnCount - taken);
  const details = (job: Job) => shortened(printable(whatOf(job)), room);
  return table(HEAD, rows(details));
}

const HEAD = ['JOB', 'STATE', 'DETAILS', 'PRIORITY', 'ATTEMPT', 'SUBMITTED', 'BATCH'];
/** Columns: a place and a reason. What is wider than the terminal goes on in the next line. */
const LEAST_DETAILS = 40;

/** One line, for a watch. */
export function describeChange(job: Job, paint: Paint): string {
  return `${painted(job, paint)}  ${printable(whatOf(job))}`.trimEnd();
}

export function describeJob(job: Job, paint: Paint): string {
  const { request, result, failure, webhook } = job;
  const rows: [string, string][] = [
    ['job', job.jobId],
    ['state', `${painted(job, paint)}  ${whatOf(job)}`.trimEnd()],
    ['batch', job.batchId],
    ['tenant', job.tenant],
    ['priority', priorityOf(job)],
    ['submitted', timeOf(job.submittedAtMs)],
    ['started', timeOf(job.startedAtMs)],
    ['ended', timeOf(job.endedAtMs)],
    ['expires', result ? '' : timeOf(job.expiresAtMs)],
    ['attempt', job.attempt > 0 ? `${job.attempt}, of which ${job.failedAttempts} failed` : ''],
    ['node', job.nodeId],
    ['failure', failure ? `${failure.reason}: ${failure.message}` : ''],
    ['prompt', request?.prompt ?? ''],
    ['model', request?.model ?? ''],
    ['seed', request?.seed === undefined ? '' : String(request.seed)],
    ...(result?.images ?? []).map((image, index): [string, string] => [
      `picture ${index}`,
      `${image.width}×${image.height} ${image.mimeType}, ${image.sizeBytes} bytes, sha256 ${image.sha256}${image.url ? ` ${image.url}` : ''}`,
    ]),
    ['drawn in', result ? duration(result.executingMs) : ''],
    ['webhook', webhook ? webhookWords(webhook) : ''],
  ];
  return rows.flatMap(([name, value]) => (value === '' ? [] : [`${name.padEnd(11)}${printable(value)}\n`])).join('');
}

function webhookWords({ url, state, attempts, lastError }: jobs.WebhookDelivery): string {
  const after = attempts > 0 ? ` after ${attempts} ${attempts === 1 ? 'attempt' : 'attempts'}` : '';
  return `${url} ${WEBHOOK_WORDS[state] ?? 'unknown'}${after}${lastError === '' ? '' : `: ${lastError}`}`;
}

const WEBHOOK_WORDS: Readonly<Record<number, string>> = {
  [jobs.WebhookState.PENDING]: 'is to be told',
  [jobs.WebhookState.DELIVERED]: 'was told',
  [jobs.WebhookState.GIVEN_UP]: 'could not be told',
};

function painted({ state }: Job, paint: Paint): string {
  const word = STATE_WORDS.find((each) => STATES[each] === state);
  return word === undefined ? 'unknown' : paint(COLOURS[word], word);
}

/** What there is to say of it just now. */
function whatOf(job: Job): string {
  const eta = job.etaMs > 0 ? `, about ${duration(job.etaMs)}` : '';
  switch (job.state) {
    case JobState.QUEUED: {
      const place = job.position > 0 ? `position ${job.position}` : 'waits';
      const { waitingFor: failure } = job;
      // What comes first is seen in a list, too.
      return failure ? `${place}${failureOf({ failure })}; again at ${timeOf(job.nextAttemptAtMs)}` : `${place}${eta}`;
    }
    case JobState.RUNNING:
      return `step ${job.step} of ${job.totalSteps} on ${job.nodeId}${eta}`;
    case JobState.SUCCEEDED:
      return `on ${job.nodeId} in ${duration(job.result?.executingMs ?? 0)}`;
    default:
      return failureOf(job).replace(/^: /, '');
  }
}

function priorityOf({ priority }: Job): string {
  return generation.Priority[priority]?.toLowerCase() ?? 'unknown';
}

/** As clocks show it, UTC. */
function timeOf(epochMs: bigint): string {
  return epochMs === 0n ? '' : `${new Date(Number(epochMs)).toISOString().slice(0, 19)}Z`;
}
