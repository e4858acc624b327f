/**
 * When is which receiver told? Of the jobs that are this replica's, those whose webhook is due. What came of an attempt
 * is one change of the job's record; until that is made, the webhook stays due, here or with whoever owns the job then.
 */
import type { Clock, Emit, Random } from '#core';
import type { Job } from '../domain/job.js';
import type { JobEntry } from '../index/job-entry.js';
import type { JobIndex } from '../index/job-index.js';
import { Agenda } from '../run/agenda.js';
import type { ShareListener } from '../run/share.js';
import type { JobRecords } from '../store/job-records.js';
import type { Deliverer } from './deliverer.js';
import type { WebhookEvent } from './events.js';
import { type Due, Outbox } from './outbox.js';
import { afterAttempt, type RetrySettings } from './outcome.js';

export interface TellerOptions {
  readonly clock: Clock;
  readonly wallNow: () => number;
  readonly random: Random;
  readonly emit: Emit<WebhookEvent>;
  readonly records: Pick<JobRecords, 'readJob' | 'changeJob'>;
  readonly deliverer: Pick<Deliverer, 'deliver'>;
  readonly index: Pick<JobIndex, 'get'>;
  readonly isMine: (key: string) => boolean;
  readonly retry: RetrySettings;
  /** Attempts under way, in all and to one receiver. */
  readonly maxCount: number;
  readonly maxPerReceiverCount: number;
}

interface DueJob extends Due {
  readonly key: string;
  readonly jobId: string;
}

/** After a record could not be read or changed, or was not as this replica knew it. */
const POSTPONE_MS = 5000;

export class Teller implements ShareListener {
  readonly #options: TellerOptions;
  readonly #agenda: Agenda;
  readonly #outbox: Outbox<DueJob>;

  constructor(options: TellerOptions) {
    this.#options = options;
    const { clock, wallNow, emit, maxCount, maxPerReceiverCount } = options;
    this.#agenda = new Agenda({ clock, wallNow, onDue: (key) => this.#take(key) });
    this.#outbox = new Outbox({
      maxCount,
      maxPerReceiverCount,
      send: async (due, signal) => {
        const told = await this.#tell(due, signal);
        this.#again(due.key, told ? 0 : wallNow() + POSTPONE_MS);
      },
      onFailed: (due, error) => {
        emit({ type: 'webhookPostponed', tenant: due.tenant, jobId: due.jobId, error });
        this.#again(due.key, wallNow() + POSTPONE_MS);
      },
    });
  }

  get waitingCount(): number {
    return this.#outbox.waitingCount;
  }

  get sendingCount(): number {
    return this.#outbox.sendingCount;
  }

  job({ key, webhook }: JobEntry, mine: boolean): void {
    this.#agenda.set(key, mine ? webhook?.nextAttemptAtMs : undefined);
  }

  removed(key: string): void {
    this.#agenda.set(key, undefined);
  }

  /** Begins no more attempts; resolves when those under way have ended. */
  async drain(): Promise<void> {
    this.#agenda.close();
    await this.#outbox.drain();
  }

  close(): void {
    this.#agenda.close();
    this.#outbox.close();
  }

  #take(key: string): void {
    const entry = this.#mine(key);
    if (entry?.webhook) this.#outbox.take({ key, tenant: entry.tenant, jobId: entry.jobId, ...entry.webhook });
  }

  /** While an attempt was under way its agenda could not be told of the next. */
  #again(key: string, notBeforeMs: number): void {
    const webhook = this.#mine(key)?.webhook;
    if (webhook) this.#agenda.set(key, Math.max(webhook.nextAttemptAtMs, notBeforeMs));
  }

  #mine(key: string): JobEntry | undefined {
    return this.#options.isMine(key) ? this.#options.index.get(key) : undefined;
  }

  /** Resolves with whether there was something to tell. */
  async #tell({ key, tenant, jobId, eventId }: DueJob, signal: AbortSignal): Promise<boolean> {
    const { deliverer, emit, random, records, retry, wallNow } = this.#options;
    if (!this.#mine(key)) return false;
    const kept = await records.readJob(tenant, jobId);
    if (!kept || !isDue(kept.job, eventId, wallNow())) return false;
    const outcome = await deliverer.deliver(kept.job, signal);
    if (!outcome) return false;
    const nowMs = wallNow();
    const told = await records.changeJob(tenant, jobId, ({ webhook }) => {
      if (webhook?.eventId !== eventId) return undefined; // it was retried meanwhile
      return { kind: 'told', eventId, webhook: afterAttempt(webhook, outcome, { ...retry, nowMs, random }) };
    });
    if (told.kind === 'changed' && told.job.webhook?.state === 'givenUp') {
      emit({ type: 'webhookGivenUp', tenant, jobId, eventId, error: told.job.webhook.lastError });
    }
    return true;
  }
}

function isDue({ webhook }: Job, eventId: string, nowMs: number): boolean {
  return webhook?.state === 'pending' && webhook.eventId === eventId && webhook.nextAttemptAtMs <= nowMs;
}
