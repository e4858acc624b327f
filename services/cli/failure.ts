/** What a person reads and a script sees when a command fails: what came, what to try, which exit code. */
import { Code, codeName, printable, Reason, StatusError } from '#core';
import { UsageError } from './arguments.js';
import { ExitCode } from './command.js';
import { duration } from './node-words.js';
import type { Paint } from './terminal.js';

const TRY: Readonly<Record<string, string>> = {
  [Reason.CONNECT_FAILED]:
    'is a router running there? "dmesh up" starts a mesh; --router host:port names another one, --ca the CA of one that speaks TLS',
  [Reason.CONNECTION_LOST]: 'the router went away while it worked; try again',
  [Reason.UNAUTHENTICATED]: 'DMESH_TOKEN or --token says who asks; an operator makes tokens with "dmesh token add"',
  [Reason.FORBIDDEN]: 'ask for less, or ask an operator for a token that allows it',
  [Reason.RATE_LIMITED]: 'try again later, or ask an operator for more',
  [Reason.UNKNOWN_MODEL]: '"dmesh models" lists what the mesh serves',
  [Reason.UNKNOWN_LORA]: '"dmesh models" lists the LoRAs of each model',
  [Reason.ROUTE_UNSERVED]: 'start a node that serves it, or set the route all the same with --force',
  [Reason.CHANGED_MEANWHILE]: 'somebody else changed it at the same time; look and try again',
  [Reason.STORE_UNAVAILABLE]:
    'try again later; if you run the mesh: routes and jobs are kept in NATS, does it run, with --jetstream --store_dir DIR?',
  [Reason.UNKNOWN_NODE]: '"dmesh nodes" lists the nodes by name',
  [Reason.PROMPT_TOO_LONG]: 'say it shorter; "dmesh models" shows the limit in tokens',
  [Reason.BAD_REQUEST]: '"dmesh models" shows what each option may be',
  [Reason.UNKNOWN_JOB]: '"dmesh jobs list" shows those of yours that are kept',
  [Reason.JOB_ENDED]: '"dmesh jobs show JOB" tells how it ended',
  [Reason.JOB_ACTIVE]: '"dmesh jobs cancel JOB" ends it first',
  [Reason.WEBHOOK_REFUSED]:
    'who runs the mesh sets DMESH_JOBS_WEBHOOKS_FILE (a secret for each tenant) and DMESH_JOBS_WEBHOOK_ALLOW (where webhooks may go); ' +
    'without --webhook "dmesh jobs watch JOB" tells of the end',
  [Reason.TOO_MANY_JOBS]: 'let some of your jobs end, or cancel them; "dmesh jobs list --state queued" shows what waits',
  [Reason.TOO_MANY_BYTES]: '"dmesh jobs delete JOB" makes room',
  [Reason.NO_JOBS_SERVICE]:
    '"dmesh up" starts a mesh with one, and where routers want tokens it says what it needs for that (DMESH_JOBS_ROUTER_TOKEN); ' +
    'on other machines a replica of the jobs service has to run',
  [Reason.NO_NODES]: '"dmesh nodes" shows which nodes the router knows and how they feel',
  [Reason.QUEUE_FULL]: 'the mesh is busy; try again later',
  [Reason.QUEUE_TIMEOUT]: 'the mesh is busy; try again later or give it more time with --timeout',
  [Reason.DEADLINE]: 'give it more time; "dmesh generate" takes --timeout',
  [Reason.EXECUTION_TIMEOUT]: '"dmesh nodes" shows whether the node is well',
  [Reason.MODEL_UNUSABLE]:
    'restore the model\'s folder on that node and reload it, its log says more; "dmesh models" lists what else there is',
};

/** Options that named what does not exist. */
const OPTION_OF_REASON: Readonly<Record<string, string>> = { [Reason.UNKNOWN_MODEL]: '--model', [Reason.UNKNOWN_LORA]: '--lora' };

/** `command`: the one that was typed, where there is such a one. */
export function describeFailure(error: unknown, paint: Paint, command?: string): string {
  if (error instanceof UsageError) {
    const help = command === undefined ? 'dmesh help shows how each command is called' : `dmesh ${command} --help shows how it is called`;
    return lines(paint, error.faults, error.hint ?? help);
  }
  // Ours, and of several lines at times.
  if (!(error instanceof StatusError)) return lines(paint, (error instanceof Error ? error.message : String(error)).split('\n'));
  const { violations, resource, retryDelayMs } = error.details;
  const option = OPTION_OF_REASON[error.reason];
  const what =
    violations && violations.length > 0
      ? violations.map((v) => (v.field === '' ? v.description : `${optionOf(v.field)}: ${v.description}`))
      : [option === undefined ? error.message : `${option}: ${error.message}`];
  const exists = resource?.description && !error.message.includes(resource.description) ? [resource.description] : [];
  const later = retryDelayMs === undefined ? [] : [`the mesh expects to take it in ${Math.ceil(retryDelayMs / 1000)} s`];
  return lines(paint, [...what, ...exists, ...later], cureOf(error), `${codeName(error.code)}/${error.reason}`);
}

function cureOf({ reason, details }: StatusError): string | undefined {
  // What it may be is said with the prompt; options are not to blame.
  if (reason === Reason.BAD_REQUEST && details.violations?.length && details.violations.every(({ field }) => isPrompt(field)))
    return undefined;
  if (reason === Reason.NO_RESULT) {
    const isOver = ['FAILED', 'CANCELLED', 'EXPIRED'].includes(details.metadata?.state ?? '');
    return isOver ? '"dmesh jobs show JOB" says why, "dmesh jobs retry JOB" runs it once more' : '"dmesh jobs watch JOB" waits for its end';
  }
  if (reason !== Reason.DEADLINE_UNREACHABLE) return TRY[reason];
  const [predicted, left] = [details.metadata?.predicted_ms, details.metadata?.left_ms].map((ms) => duration(Number(ms)));
  const figures = details.metadata?.predicted_ms === undefined ? '' : `it would take ${predicted} and has ${left}: `;
  return `${figures}give it more time with --timeout, make it smaller, or ask with --priority high`;
}

export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof UsageError) return ExitCode.USAGE;
  if (!(error instanceof StatusError)) return ExitCode.FAILED;
  // Nothing is wrong with the request itself: with more time, or a quieter mesh, the same one is drawn.
  if (error.reason === Reason.DEADLINE_UNREACHABLE) return ExitCode.UNAVAILABLE;
  switch (error.code) {
    case Code.INVALID_ARGUMENT:
    case Code.NOT_FOUND:
    case Code.FAILED_PRECONDITION:
    case Code.OUT_OF_RANGE:
    case Code.UNAUTHENTICATED:
    case Code.PERMISSION_DENIED:
      return ExitCode.REFUSED;
    case Code.UNAVAILABLE:
    case Code.DEADLINE_EXCEEDED:
    case Code.RESOURCE_EXHAUSTED:
      return ExitCode.UNAVAILABLE;
    case Code.CANCELLED:
      return ExitCode.INTERRUPTED;
    default:
      return ExitCode.FAILED;
  }
}

/** The option a person typed for a field of the contract. */
function optionOf(field: string): string {
  if (field === 'width' || field === 'height') return `--size (${field})`;
  if (field.startsWith('loras')) return `--lora (${field})`;
  return (
    { image_count: '--count', guidance_scale: '--guidance', negative_prompt: '--negative' }[field] ??
    (isPrompt(field) ? field : `--${field}`)
  );
}

/** The only one there is, or one of a file. */
function isPrompt(field: string): boolean {
  return /^(line \d+: )?prompt$/.test(field);
}

function lines(paint: Paint, what: readonly string[], hint?: string, name?: string): string {
  const head = what.map((text, index) => `${index === 0 ? paint('red', 'error: ') : '       '}${printable(text)}`);
  if (name !== undefined && head[0] !== undefined) head[0] += paint('dim', ` (${name})`);
  return `${[...head, ...(hint === undefined ? [] : [`${paint('cyan', '  try: ')}${hint}`])].join('\n')}\n`;
}
