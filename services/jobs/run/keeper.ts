/**
 * What becomes of a job with time? One that was not drawn expires; one that has ended is forgotten, with its pictures,
 * when its tenant's days are over; one of a batch that was never committed goes after a while. Each replica looks
 * after its own.
 */
import type { Clock, Emit } from '#core';
import type { Blobs } from '../blobs/blobs.js';
import type { Job } from '../domain/job.js';
import type { JobsEvent } from '../events.js';
import type { JobEntry } from '../index/job-entry.js';
import type { JobIndex } from '../index/job-index.js';
import type { JobRecords } from '../store/job-records.js';
import { Agenda } from './agenda.js';
import type { ShareListener } from './share.js';

export interface KeeperOptions {
  readonly clock: Clock;
  readonly wallNow: () => number;
  readonly emit: Emit<JobsEvent>;
  readonly records: Pick<JobRecords, 'changeJob' | 'readBatch' | 'readJob' | 'removeJob'>;
  readonly pictures: Pick<Blobs, 'delete'>;
  readonly index: Pick<JobIndex, 'get' | 'isHeld'>;
  readonly isMine: (key: string) => boolean;
  /** How long a job of this tenant is kept after its end. */
  readonly retentionMs: (tenant: string) => number;
}

/** A batch of a thousand is written within seconds. */
const UNCOMMITTED_MS = 10 * 60_000;
const RETRY_MS = 5000;
/** When a large batch expires, calls and other jobs' records must not wait behind it. */
const AT_ONCE_COUNT = 32;

export class Keeper implements ShareListener {
  readonly #options: KeeperOptions;
  readonly #agenda: Agenda;
  /** Keys of those whose turn comes. */
  readonly #due = new Set<string>();
  #underWayCount = 0;

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#agenda = new Agenda({ ...options, onDue: (key) => this.#attendInTurn(key) });
  }

  job(entry: JobEntry, mine: boolean): void {
    this.#agenda.set(entry.key, mine ? this.#dueAtMs(entry) : undefined);
  }

  removed(key: string): void {
    this.#agenda.set(key, undefined);
  }

  close(): void {
    this.#agenda.close();
    this.#due.clear();
  }

  /** Undefined: not before its webhook was told, or given up. */
  #dueAtMs(entry: JobEntry): number | undefined {
    const { endedAtMs, expiresAtMs, submittedAtMs, tenant, webhook } = entry;
    if (this.#options.index.isHeld(entry)) return submittedAtMs + UNCOMMITTED_MS;
    if (endedAtMs === 0) return expiresAtMs;
    return webhook ? undefined : endedAtMs + this.#options.retentionMs(tenant);
  }

  #attendInTurn(key: string): void {
    this.#due.add(key);
    this.#next();
  }

  #next(): void {
    for (const key of this.#due) {
      if (this.#underWayCount >= AT_ONCE_COUNT) return;
      this.#due.delete(key);
      this.#underWayCount++;
      void this.#attend(key).finally(() => {
        this.#underWayCount--;
        this.#next();
      });
    }
  }

  async #attend(key: string): Promise<void> {
    const { emit, index, isMine, wallNow } = this.#options;
    const entry = index.get(key);
    if (!entry || !isMine(key)) return;
    // It may have changed while it waited for its turn.
    if ((this.#dueAtMs(entry) ?? Number.POSITIVE_INFINITY) > wallNow()) return this.job(entry, true);
    const { jobId, tenant } = entry;
    try {
      await this.#do(entry);
    } catch (error) {
      emit({ type: 'chorePostponed', tenant, jobId, error });
    }
    // What changed has put itself on the agenda anew; what did not is tried again.
    const now = index.get(key);
    const dueAtMs = now && isMine(key) ? this.#dueAtMs(now) : undefined;
    if (dueAtMs !== undefined && dueAtMs <= wallNow()) this.#agenda.set(key, wallNow() + RETRY_MS);
  }

  async #do(entry: JobEntry): Promise<void> {
    const { emit, index, records, wallNow } = this.#options;
    const { endedAtMs, jobId, tenant } = entry;
    if (index.isHeld(entry)) {
      const removed = await this.#remove(entry, (job) => this.#isUncommitted(job));
      if (removed) emit({ type: 'jobForgotten', tenant, jobId, why: 'uncommitted' });
    } else if (endedAtMs > 0) {
      const removed = await this.#remove(entry, (job) => this.#isStale(job));
      if (removed) await this.#forget(removed);
    } else {
      const nowMs = wallNow();
      await records.changeJob(tenant, jobId, ({ expiresAtMs }) => (expiresAtMs <= nowMs ? { kind: 'expired', atMs: nowMs } : undefined));
    }
  }

  /** Resolves with what was removed. */
  async #remove({ jobId, tenant }: JobEntry, isRight: (job: Job) => boolean | Promise<boolean>): Promise<Job | undefined> {
    const { records } = this.#options;
    const stored = await records.readJob(tenant, jobId);
    if (!stored || !(await isRight(stored.job))) return undefined;
    return (await records.removeJob(tenant, jobId, stored.revision)) ? stored.job : undefined;
  }

  /** By NATS itself: this replica may have been cut off while the batch was committed. */
  async #isUncommitted({ batchId, jobId, tenant }: Job): Promise<boolean> {
    const stored = await this.#options.records.readBatch(tenant, batchId);
    return !stored?.batch.jobIds.includes(jobId);
  }

  #isStale({ state, tenant, webhook }: Job): boolean {
    const { retentionMs, wallNow } = this.#options;
    if (webhook?.state === 'pending') return false;
    return 'endedAtMs' in state && state.endedAtMs + retentionMs(tenant) <= wallNow();
  }

  /** The record is gone: a picture that stays now is an orphan, and swept as such. */
  async #forget({ jobId, state, tenant }: Job): Promise<void> {
    const { emit, pictures } = this.#options;
    emit({ type: 'jobForgotten', tenant, jobId, why: 'retention' });
    if (state.kind === 'succeeded') for (const { blob } of state.result.images) await pictures.delete(blob);
  }
}
