/**
 * What becomes of a job with time? One that was not drawn expires; one that has ended is forgotten, with its pictures,
 * when its tenant's days are over; one of a batch that was never committed goes after a while. Each replica looks
 * after its own.
 */
import type { Clock, Emit } from '#core';
import { isEnded, type Job } from '../domain/job.js';
import type { JobsEvent } from '../events.js';
import { Agenda } from './agenda.js';
import type { JobEntry, Pictures, Records } from './ports.js';
import type { ShareListener } from './share.js';

export interface KeeperOptions {
  readonly clock: Clock;
  readonly wallNow: () => number;
  readonly emit: Emit<JobsEvent>;
  readonly records: Pick<Records, 'change' | 'remove'>;
  readonly pictures: Pick<Pictures, 'delete'>;
  readonly entry: (key: string) => JobEntry | undefined;
  readonly isMine: (key: string) => boolean;
  /** How long a job of this tenant is kept after its end. */
  readonly retentionMs: (tenant: string) => number;
}

/** A batch of a thousand is written within seconds. */
const UNCOMMITTED_MS = 10 * 60_000;
const RETRY_MS = 5000;

export class Keeper implements ShareListener {
  readonly #options: KeeperOptions;
  readonly #agenda: Agenda;

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#agenda = new Agenda({ ...options, onDue: (key) => void this.#attend(key) });
  }

  job(entry: JobEntry, mine: boolean): void {
    this.#agenda.set(entry.key, mine ? this.#dueAtMs(entry) : undefined);
  }

  removed(key: string): void {
    this.#agenda.set(key, undefined);
  }

  close(): void {
    this.#agenda.close();
  }

  #dueAtMs({ expiresAtMs, held, state, submittedAtMs, tenant }: JobEntry): number {
    if (held) return submittedAtMs + UNCOMMITTED_MS;
    return 'endedAtMs' in state ? state.endedAtMs + this.#options.retentionMs(tenant) : expiresAtMs;
  }

  async #attend(key: string): Promise<void> {
    const { emit, entry: entryOf, isMine, wallNow } = this.#options;
    const entry = entryOf(key);
    if (!entry || !isMine(key)) return;
    try {
      await this.#do(entry);
    } catch (error) {
      emit({ type: 'chorePostponed', tenant: entry.tenant, jobId: entry.jobId, error });
    }
    // What changed has put itself on the agenda anew; what did not is tried again.
    const now = entryOf(key);
    if (now && isMine(key) && this.#dueAtMs(now) <= wallNow()) this.#agenda.set(key, wallNow() + RETRY_MS);
  }

  async #do(entry: JobEntry): Promise<void> {
    const { emit, entry: entryOf, records, wallNow } = this.#options;
    const { jobId, key, tenant } = entry;
    if (entry.held) {
      const removed = await records.remove(key, () => entryOf(key)?.held ?? false);
      if (removed) emit({ type: 'jobForgotten', tenant, jobId, why: 'uncommitted' });
    } else if ('endedAtMs' in entry.state) {
      const removed = await records.remove(key, (job) => this.#isStale(job));
      if (removed) await this.#forget(removed);
    } else {
      const nowMs = wallNow();
      await records.change(key, (job) => (job.expiresAtMs <= nowMs ? { kind: 'expired', atMs: nowMs } : undefined));
    }
  }

  #isStale(job: Job): boolean {
    const { retentionMs, wallNow } = this.#options;
    return isEnded(job) && 'endedAtMs' in job.state && job.state.endedAtMs + retentionMs(job.tenant) <= wallNow();
  }

  /** The record is gone: a picture that stays now is an orphan, and swept as such. */
  async #forget({ jobId, state, tenant }: Job): Promise<void> {
    const { emit, pictures } = this.#options;
    emit({ type: 'jobForgotten', tenant, jobId, why: 'retention' });
    if (state.kind === 'succeeded') for (const { blob } of state.result.images) await pictures.delete(blob);
  }
}
