/**
 * What others are told of jobs while it happens, on `dmesh.v1.job.<id>.event`: each change by the replica that owns
 * the job, and now and then how far it is by the one that runs it. Small JSON; told once, to whoever listens, and not
 * kept: what a job is stands in its record.
 *
 * Steps are not recorded at all (ten writes for each picture would be most of the load), nor is what a job waits for.
 * Every replica listens for both here, so that each can tell how a job is.
 */
import { ALL_JOB_EVENTS, type Bus, jobEventSubject } from '#bus';
import { type Clock, Code } from '#core';
import { SCOPES, type Scope } from '../domain/failures.js';
import { jobKey } from '../domain/record.js';
import type { JobEntry } from '../index/job-entry.js';
import type { JobIndex } from '../index/job-index.js';
import type { Wait, Waits } from './waits.js';

export interface Step {
  readonly attempt: number;
  readonly nodeId: string;
  readonly step: number;
  readonly totalSteps: number;
}

export type StepListener = (step: Step) => void;

export interface JobNewsOptions {
  readonly bus: Pick<Bus, 'publish' | 'subscribe'>;
  readonly clock: Clock;
  readonly waits: Pick<Waits, 'begun' | 'changed' | 'queued' | 'turnedAway'>;
  readonly index: Pick<JobIndex, 'get'>;
}

interface OfJob {
  readonly tenant: string;
  readonly jobId: string;
}

/** A person sees it move; a thousand running jobs are a few thousand small messages a second. */
const EVERY_MS = 300;
const CODES = Object.values(Code);
/** Of messages that are worth parsing. */
const MARKS = ['"step":', '"position":', '"waiting_for":'].map((mark) => Buffer.from(mark));
/** Told with a job that waits: a sentence, whatever a router made of it. */
const MAX_MESSAGE_LENGTH = 500;

export class JobNews {
  readonly #options: JobNewsOptions;
  /** By key, of jobs that run: the last one heard of. */
  readonly #steps = new Map<string, Step>();
  readonly #listeners = new Map<string, Set<StepListener>>();
  /** By key, of jobs in the hands of this replica: when their progress was told last. */
  readonly #toldAt = new Map<string, number>();
  #unsubscribe = () => {};

  constructor(options: JobNewsOptions) {
    this.#options = options;
  }

  start(): void {
    this.#unsubscribe = this.#options.bus.subscribe(ALL_JOB_EVENTS, ({ data }) => this.#hear(data));
  }

  stop(): void {
    this.#unsubscribe();
  }

  /** How far it is; undefined: not heard yet, or it does not run. */
  stepOf(key: string): Step | undefined {
    return this.#steps.get(key);
  }

  /** Told of each step heard of. Returns what ends it. */
  onStep(key: string, listener: StepListener): () => void {
    const listeners = this.#listeners.get(key) ?? new Set();
    this.#listeners.set(key, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0) this.#listeners.delete(key);
    };
  }

  /** `told`: whether this replica is the one to tell. */
  changed(entry: JobEntry, told: boolean): void {
    const { attempt, batchId, jobId, kind, nodeId, revision, tenant } = entry;
    if (kind !== 'running') this.removed(entry);
    else this.#options.waits.begun(entry);
    if (!told) return;
    this.#publish({ tenant, jobId }, { batch_id: batchId, state: kind.toUpperCase(), revision, attempt, node_id: nodeId });
  }

  removed(entry: JobEntry): void {
    this.#steps.delete(entry.key);
    this.#toldAt.delete(entry.key);
    this.#options.waits.changed(entry);
  }

  /** It waits at a router: its place in line there, and that long by its prediction. */
  waits(job: OfJob, { etaMs, position }: { readonly etaMs: number; readonly position: number }): void {
    if (this.#isTime(job)) this.#publish(job, { state: 'QUEUED', position, eta_ms: Math.round(etaMs) });
  }

  /** It was turned away, as are for now all whom the scope names. */
  turnedAway(job: OfJob, { failure, nextAttemptAtMs, scope }: Wait & { readonly scope: Scope }): void {
    const waitingFor = { ...failure, message: failure.message.slice(0, MAX_MESSAGE_LENGTH) };
    this.#publish(job, { state: 'QUEUED', waiting_for: waitingFor, scope, next_attempt_at_ms: nextAttemptAtMs });
  }

  stepped(job: OfJob, { attempt, nodeId, step, totalSteps }: Step): void {
    if (!this.#isTime(job)) return;
    this.#publish(job, { state: 'RUNNING', attempt, node_id: nodeId, step, total_steps: totalSteps });
  }

  #publish({ tenant, jobId }: OfJob, fields: object): void {
    this.#options.bus.publish(jobEventSubject(jobId), JSON.stringify({ job_id: jobId, tenant, ...fields }));
  }

  #isTime({ tenant, jobId }: OfJob): boolean {
    const key = jobKey(tenant, jobId);
    const now = this.#options.clock.now();
    if (now - (this.#toldAt.get(key) ?? Number.NEGATIVE_INFINITY) < EVERY_MS) return false;
    this.#toldAt.set(key, now);
    return true;
  }

  /** Anybody may publish there: what is not ours, or comes late, is passed over. */
  #hear(data: Uint8Array): void {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
    if (!MARKS.some((mark) => bytes.includes(mark))) return;
    const { index, waits } = this.#options;
    const heard = parse(bytes.toString('utf8'));
    const entry = heard && index.get(jobKey(heard.tenant, heard.jobId));
    if (heard?.kind === 'stepped' && entry?.kind === 'running') {
      this.#steps.set(entry.key, heard.step);
      for (const listener of [...(this.#listeners.get(entry.key) ?? [])]) listener(heard.step);
    } else if (heard?.kind === 'turnedAway' && entry?.kind === 'queued') waits.turnedAway(entry, heard.scope, heard.wait);
    else if (heard?.kind === 'waits' && entry?.kind === 'queued') waits.queued(entry);
  }
}

type Heard = OfJob &
  (
    | { readonly kind: 'stepped'; readonly step: Step }
    | { readonly kind: 'waits' }
    | { readonly kind: 'turnedAway'; readonly scope: Scope; readonly wait: Wait }
  );

function parse(text: string): Heard | undefined {
  let value: Readonly<Record<string, unknown>>;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const { tenant, job_id: jobId } = value ?? {};
  if (typeof tenant !== 'string' || typeof jobId !== 'string') return undefined;
  if ('position' in value) return { kind: 'waits', tenant, jobId };
  if ('waiting_for' in value) {
    const turnedAway = parseTurnedAway(value);
    return turnedAway && { kind: 'turnedAway', tenant, jobId, ...turnedAway };
  }
  const { attempt, node_id: nodeId, step, total_steps: totalSteps } = value;
  if (typeof nodeId !== 'string' || !isCount(attempt) || !isCount(step) || !isCount(totalSteps)) return undefined;
  return { kind: 'stepped', tenant, jobId, step: { attempt, nodeId, step, totalSteps } };
}

function parseTurnedAway(value: Readonly<Record<string, unknown>>): { readonly scope: Scope; readonly wait: Wait } | undefined {
  const { next_attempt_at_ms: nextAttemptAtMs, waiting_for: failure } = value;
  const scope = SCOPES.find((known) => known === value.scope);
  if (!scope || !isEpochMs(nextAttemptAtMs) || typeof failure !== 'object' || failure === null) return undefined;
  const { message, reason, ...rest } = failure as Readonly<Record<string, unknown>>;
  const code = CODES.find((known) => known === rest.code);
  if (code === undefined || typeof reason !== 'string' || typeof message !== 'string') return undefined;
  return { scope, wait: { failure: { code, reason, message: message.slice(0, MAX_MESSAGE_LENGTH) }, nextAttemptAtMs } };
}

/** As the contract can say it. */
function isCount(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) < 2 ** 32;
}

/** Which a Date can tell. */
function isEpochMs(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) <= 8.64e15;
}
