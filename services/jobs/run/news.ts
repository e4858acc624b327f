/**
 * What others are told of jobs while it happens, on `dmesh.v1.job.<id>.event`: each change by the replica that owns
 * the job, and now and then how far it is by the one that runs it. Small JSON; told once, to whoever listens, and not
 * kept: what a job is stands in its record.
 *
 * Steps are not recorded at all (ten writes for each picture would be most of the load). Every replica listens for
 * them here, so that each can tell how far a job is.
 */
import { ALL_JOB_EVENTS, type Bus, jobEventSubject } from '#bus';
import type { Clock } from '#core';
import { jobKey } from '../domain/record.js';
import type { JobEntry } from '../index/job-entry.js';

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
  /** By its record, as far as known here. */
  readonly isRunning: (key: string) => boolean;
}

interface OfJob {
  readonly tenant: string;
  readonly jobId: string;
}

/** A person sees it move; a thousand running jobs are a few thousand small messages a second. */
const EVERY_MS = 300;
/** Of a message that is worth parsing. */
const STEP_MARK = Buffer.from('"step":');

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
    const { attempt, batchId, jobId, key, kind, nodeId, revision, tenant } = entry;
    if (kind !== 'running') this.removed(key);
    if (!told) return;
    this.#publish({ tenant, jobId }, { batch_id: batchId, state: kind.toUpperCase(), revision, attempt, node_id: nodeId });
  }

  removed(key: string): void {
    this.#steps.delete(key);
    this.#toldAt.delete(key);
  }

  /** It waits at a router: its place in line there, and that long by its prediction. */
  waits(job: OfJob, { etaMs, position }: { readonly etaMs: number; readonly position: number }): void {
    if (this.#isTime(job)) this.#publish(job, { state: 'QUEUED', position, eta_ms: Math.round(etaMs) });
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

  /** Anybody may publish there: what is no step of ours is passed over. */
  #hear(data: Uint8Array): void {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
    if (!bytes.includes(STEP_MARK)) return;
    const heard = parseStep(bytes.toString('utf8'));
    if (!heard) return;
    const key = jobKey(heard.tenant, heard.jobId);
    if (!this.#options.isRunning(key)) return; // late
    this.#steps.set(key, heard.step);
    for (const listener of [...(this.#listeners.get(key) ?? [])]) listener(heard.step);
  }
}

function parseStep(text: string): (OfJob & { readonly step: Step }) | undefined {
  let value: Readonly<Record<string, unknown>>;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const { tenant, job_id: jobId, attempt, node_id: nodeId, step, total_steps: totalSteps } = value;
  if (typeof tenant !== 'string' || typeof jobId !== 'string' || typeof nodeId !== 'string') return undefined;
  if (!isCount(attempt) || !isCount(step) || !isCount(totalSteps)) return undefined;
  return { tenant, jobId, step: { attempt, nodeId, step, totalSteps } };
}

/** As the contract can say it. */
function isCount(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) < 2 ** 32;
}
