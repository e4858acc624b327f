/**
 * The jobs that can be seen, in order: by tenant and state from the newest on, and all that wait by whose turn it is.
 * Each is counted in while it is as it was counted, and out before it changes.
 */
import { PRIORITIES, type Priority } from '#scheduling';
import type { StateKind } from '../domain/job.js';
import type { JobEntry } from './job-entry.js';
import { comparePlaces, type Place, SortedEntries } from './sorted-entries.js';

export interface JobFilter {
  readonly tenant: string;
  /** Empty: all. */
  readonly states: ReadonlySet<StateKind>;
  /** '': all. */
  readonly batchId: string;
  readonly submittedFromMs: number;
  /** Before then. */
  readonly submittedToMs: number;
}

interface TenantJobs {
  readonly byState: Readonly<Record<StateKind, SortedEntries>>;
  jobCount: number;
  storedBytes: number;
}

const STATES = ['queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired'] as const satisfies readonly StateKind[];

export class SeenJobs {
  readonly #tenants = new Map<string, TenantJobs>();
  readonly #waiting: Readonly<Record<Priority, SortedEntries>> = {
    high: new SortedEntries(),
    normal: new SortedEntries(),
    low: new SortedEntries(),
  };
  readonly #counts = byState(() => 0);
  #storedBytes = 0;

  get counts(): Readonly<Record<StateKind, number>> {
    return this.#counts;
  }

  /** Of all pictures. */
  get storedBytes(): number {
    return this.#storedBytes;
  }

  waitingCount(tenant: string): number {
    return this.#tenants.get(tenant)?.byState.queued.size ?? 0;
  }

  activeCount(tenant: string): number {
    const jobs = this.#tenants.get(tenant)?.byState;
    return jobs ? jobs.queued.size + jobs.running.size : 0;
  }

  tenantStoredBytes(tenant: string): number {
    return this.#tenants.get(tenant)?.storedBytes ?? 0;
  }

  oldestWaiting(): JobEntry | undefined {
    const oldest = PRIORITIES.map((priority) => this.#waiting[priority].oldest()).filter((entry) => entry !== undefined);
    return oldest.sort((a, b) => a.submittedAtMs - b.submittedAtMs)[0];
  }

  /** 1 is next of all that wait, by class and then by age. Tenants and nodes may shift it. */
  position(entry: JobEntry): number {
    const higher = PRIORITIES.slice(0, PRIORITIES.indexOf(entry.priority));
    return 1 + this.#waiting[entry.priority].rank(entry) + higher.reduce((sum, priority) => sum + this.#waiting[priority].size, 0);
  }

  /** Newest first, beginning after `place`; at most `limit`. */
  list(filter: Omit<JobFilter, 'batchId'>, limit: number, place?: Place): JobEntry[] {
    const { states, submittedFromMs, submittedToMs, tenant } = filter;
    const to: Place = { submittedAtMs: submittedToMs, tenant: '', jobId: '' };
    const start = place && place.submittedAtMs < submittedToMs ? place : to;
    const wanted = states.size === 0 ? STATES : [...states];
    const groups = this.#tenants.get(tenant)?.byState;
    const found: JobEntry[] = [];
    for (const entry of newestOf(wanted.map((state) => groups?.[state].newestFirst(start) ?? []))) {
      if (entry.submittedAtMs < submittedFromMs || found.length === limit) break;
      found.push(entry);
    }
    return found;
  }

  add(entry: JobEntry): void {
    const { kind, priority, storedBytes, tenant } = entry;
    const own = this.#tenantFor(tenant);
    own.jobCount++;
    own.byState[kind].add(entry);
    own.storedBytes += storedBytes;
    this.#storedBytes += storedBytes;
    this.#counts[kind]++;
    if (kind === 'queued') this.#waiting[priority].add(entry);
  }

  remove(entry: JobEntry): void {
    const { kind, priority, storedBytes, tenant } = entry;
    const own = this.#tenantFor(tenant);
    own.jobCount--;
    own.byState[kind].remove(entry);
    own.storedBytes -= storedBytes;
    this.#storedBytes -= storedBytes;
    this.#counts[kind]--;
    if (kind === 'queued') this.#waiting[priority].remove(entry);
    if (own.jobCount === 0) this.#tenants.delete(tenant);
  }

  #tenantFor(tenant: string): TenantJobs {
    const known = this.#tenants.get(tenant);
    if (known) return known;
    const made: TenantJobs = { byState: byState(() => new SortedEntries()), jobCount: 0, storedBytes: 0 };
    this.#tenants.set(tenant, made);
    return made;
  }
}

function byState<T>(make: () => T): Record<StateKind, T> {
  return { queued: make(), running: make(), succeeded: make(), failed: make(), cancelled: make(), expired: make() };
}

/** Several lists, each newest first, as one. */
function* newestOf(lists: readonly Iterable<JobEntry>[]): Generator<JobEntry> {
  const heads = lists.map((list) => list[Symbol.iterator]()).map((rest) => ({ rest, next: rest.next() }));
  for (;;) {
    let newest: (typeof heads)[number] | undefined;
    for (const head of heads) {
      if (!head.next.done && (!newest || comparePlaces(head.next.value, newest.next.value) > 0)) newest = head;
    }
    if (!newest) return;
    yield newest.next.value;
    newest.next = newest.rest.next();
  }
}
