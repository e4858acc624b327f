/**
 * Every job in short, in memory, at every replica: built from following the bucket, so that lists,
 * positions, bounds and figures need no question to NATS, and every change is known within milliseconds.
 *
 * A job of a batch is there for others once the batch's own record names it; before that it is held here:
 * not counted, listed or found. While NATS is away all of this is as it was.
 */
import type { KeptState } from '#bus';
import type { Clock } from '#core';
import type { Job, StateKind } from '../domain/job.js';
import { type Batch, batchKey, jobKey } from '../domain/record.js';
import type { RecordsListener, StoredBatch, StoredJob } from '../store/job-records.js';
import { EndRate } from './end-rate.js';
import { entryOf, type JobEntry, type MutableEntry } from './job-entry.js';
import { type JobFilter, SeenJobs } from './seen-jobs.js';
import type { Place } from './sorted-entries.js';

export type JobChange =
  /** `before`: undefined when it is new here, or only now real, with its batch; then `job` is too. */
  | { readonly kind: 'changed'; readonly entry: JobEntry; readonly before: StateKind | undefined; readonly job: Job | undefined }
  | { readonly kind: 'removed'; readonly entry: JobEntry };

export type JobListener = (what: JobChange) => void;

export interface BatchEntry {
  readonly tenant: string;
  readonly batchId: string;
  /** Of its record; undefined while there is none. */
  readonly committed: (Omit<Batch, 'jobIds'> & { readonly revision: number; readonly jobIds: ReadonlySet<string> }) | undefined;
  /** Those there are that name it; without `committed` nobody sees them. */
  readonly jobs: ReadonlySet<JobEntry>;
}

interface MutableBatch extends BatchEntry {
  committed: BatchEntry['committed'];
  readonly jobs: Set<JobEntry>;
}

/** Texts that are equal in many jobs; beyond this, somebody makes up names. */
const SHARED_TEXTS = 10_000;
const BEHIND_MS = 1000;
/** What NATS keeps of a record beside it and its key. */
const RECORD_OVERHEAD_BYTES = 64;

export class JobIndex {
  readonly #clock: Clock;
  readonly #onUnreadable: RecordsListener['onUnreadable'];
  readonly #entries = new Map<string, MutableEntry>();
  readonly #batches = new Map<string, MutableBatch>();
  readonly #seen = new SeenJobs();
  readonly #rate = new EndRate();
  readonly #listeners = new Set<JobListener>();
  readonly #stateListeners = new Set<(state: KeptState) => void>();
  readonly #watchers = new Map<string, Set<JobListener>>();
  readonly #batchWaiters = new Map<string, Set<AbortController>>();
  readonly #shared = new Map<string, string>();
  #recordBytes = 0;
  #complete = false;

  constructor(options: { readonly clock: Clock; readonly onUnreadable: RecordsListener['onUnreadable'] }) {
    this.#clock = options.clock;
    this.#onUnreadable = options.onUnreadable;
  }

  /** To be given to JobRecords. */
  get listener(): RecordsListener {
    return {
      onJob: (stored, sizeBytes) => this.#takeJob(stored, sizeBytes),
      onBatch: (stored) => this.#takeBatch(stored),
      onRemoved: (key) => (this.#entries.has(key) ? this.#removeJob(key) : this.#removeBatch(key)),
      onState: (state) => this.#takeState(state),
      onUnreadable: this.#onUnreadable,
    };
  }

  /** All that was there has been told once: before that, nothing here is complete. */
  get complete(): boolean {
    return this.#complete;
  }

  /** Of all jobs that can be seen. */
  get counts(): Readonly<Record<StateKind, number>> {
    return this.#seen.counts;
  }

  /** About what all records take on disk. */
  get recordBytes(): number {
    return this.#recordBytes;
  }

  /** Of all pictures. */
  get storedBytes(): number {
    return this.#seen.storedBytes;
  }

  /** Undefined also while its batch is not there. */
  job(tenant: string, jobId: string): JobEntry | undefined {
    const entry = this.#entries.get(jobKey(tenant, jobId));
    return entry && !this.isHeld(entry) ? entry : undefined;
  }

  /** Undefined while its record is not there. */
  batch(tenant: string, batchId: string): BatchEntry | undefined {
    const batch = this.#batches.get(batchKey(tenant, batchId));
    return batch?.committed ? batch : undefined;
  }

  /** Whether this replica knows of a batch that NATS has; it is milliseconds behind, and a second at most is waited. */
  async batchKnown(tenant: string, batchId: string): Promise<boolean> {
    if (this.batch(tenant, batchId)) return true;
    const key = batchKey(tenant, batchId);
    const known = new AbortController();
    const waiting = this.#batchWaiters.get(key) ?? new Set();
    this.#batchWaiters.set(key, waiting.add(known));
    await this.#clock.sleep(BEHIND_MS, known.signal).catch(() => {}); // it is known
    waiting.delete(known);
    if (waiting.size === 0) this.#batchWaiters.delete(key);
    return known.signal.aborted;
  }

  /** By the key of its record, held or not. */
  get(key: string): JobEntry | undefined {
    return this.#entries.get(key);
  }

  /** All of them, held ones included. */
  entries(): Iterable<JobEntry> {
    return this.#entries.values();
  }

  /** It names a batch which is not there, or does not name it: not to be seen or run, and removed after a while. */
  isHeld({ batchId, jobId, tenant }: JobEntry): boolean {
    return batchId !== '' && !this.#batches.get(batchKey(tenant, batchId))?.committed?.jobIds.has(jobId);
  }

  batches(): Iterable<BatchEntry> {
    return this.#batches.values();
  }

  waitingCount(tenant: string): number {
    return this.#seen.waitingCount(tenant);
  }

  /** Waiting and running. */
  activeCount(tenant: string): number {
    return this.#seen.activeCount(tenant);
  }

  tenantStoredBytes(tenant: string): number {
    return this.#seen.tenantStoredBytes(tenant);
  }

  oldestWaiting(): JobEntry | undefined {
    return this.#seen.oldestWaiting();
  }

  /** 1 is next of all that wait, by class and then by age. Tenants and nodes may shift it. */
  position(entry: JobEntry): number {
    return this.#seen.position(entry);
  }

  /** Predicted time until it has ended; 0: not known, or over. `nowMs` is the wall clock's. */
  etaMs(entry: JobEntry, nowMs: number): number {
    if (entry.kind === 'queued') return this.#rate.untilMs(this.position(entry) + this.#seen.counts.running, this.#clock.now());
    return entry.kind === 'running' ? Math.max(0, this.#rate.drawMs - (nowMs - entry.startedAtMs)) : 0;
  }

  /** Newest first, beginning after `place`; at most `limit`. */
  list(filter: JobFilter, limit: number, place?: Place): JobEntry[] {
    if (filter.batchId === '') return this.#seen.list(filter, limit, place);
    const alone = new SeenJobs();
    for (const entry of this.batch(filter.tenant, filter.batchId)?.jobs ?? []) if (!this.isHeld(entry)) alone.add(entry);
    return alone.list(filter, limit, place);
  }

  /** Told after every change, of held jobs too, and of each when all is read for the first time. Returns what ends it. */
  onChange(listener: JobListener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Told whether the bucket is followed. Returns what ends it. */
  onState(listener: (state: KeptState) => void): () => void {
    this.#stateListeners.add(listener);
    return () => void this.#stateListeners.delete(listener);
  }

  /** Of one job, whether or not it is known here yet. Returns what ends it. */
  watch(key: string, listener: JobListener): () => void {
    const watchers = this.#watchers.get(key) ?? new Set();
    this.#watchers.set(key, watchers.add(listener));
    return () => {
      watchers.delete(listener);
      if (watchers.size === 0) this.#watchers.delete(key);
    };
  }

  #takeState(state: KeptState): void {
    if (state.kind === 'following') this.#complete = true;
    for (const listener of [...this.#stateListeners]) listener(state);
  }

  #takeJob({ job, revision }: StoredJob, sizeBytes: number): void {
    const key = jobKey(job.tenant, job.jobId);
    const recordBytes = sizeBytes + key.length + RECORD_OVERHEAD_BYTES;
    const next = entryOf(key, job, { revision, recordBytes }, (text) => this.#share(text));
    const known = this.#entries.get(key);
    // Removed and made anew while nobody looked, or submitted anew with its batch: another place in the order.
    if (known && (known.uid !== next.uid || known.submittedAtMs !== next.submittedAtMs)) this.#removeJob(key);
    const entry = this.#entries.get(key);
    if (!entry) return this.#addJob(next, job);
    const before = entry.kind;
    const held = this.isHeld(entry);
    if (!held) this.#seen.remove(entry);
    this.#recordBytes += recordBytes - entry.recordBytes;
    Object.assign(entry, next);
    if (!held) this.#seen.add(entry);
    this.#noteEnd(entry, before);
    this.#tell({ kind: 'changed', entry, before, job });
  }

  #addJob(entry: MutableEntry, job: Job): void {
    this.#entries.set(entry.key, entry);
    this.#recordBytes += entry.recordBytes;
    if (entry.batchId !== '') this.#batchFor(entry.tenant, entry.batchId).jobs.add(entry);
    if (!this.isHeld(entry)) this.#seen.add(entry);
    this.#tell({ kind: 'changed', entry, before: undefined, job });
  }

  #removeJob(key: string): void {
    const entry = this.#entries.get(key);
    if (!entry) return;
    if (!this.isHeld(entry)) this.#seen.remove(entry);
    this.#entries.delete(key);
    this.#recordBytes -= entry.recordBytes;
    if (entry.batchId !== '') {
      const batch = this.#batchFor(entry.tenant, entry.batchId);
      batch.jobs.delete(entry);
      if (!batch.committed && batch.jobs.size === 0) this.#batches.delete(batchKey(entry.tenant, entry.batchId));
    }
    this.#tell({ kind: 'removed', entry });
  }

  #takeBatch({ batch, revision }: StoredBatch): void {
    const known = this.#batchFor(batch.tenant, batch.batchId);
    const held = new Set([...known.jobs].filter((entry) => this.isHeld(entry)));
    known.committed = { ...batch, revision, jobIds: new Set(batch.jobIds) };
    for (const entry of [...known.jobs]) {
      const isHeld = this.isHeld(entry);
      if (isHeld === held.has(entry)) continue;
      // Held from now on: while nobody looked the batch was removed, and another made under its name.
      if (isHeld) this.#seen.remove(entry);
      else this.#seen.add(entry);
      this.#tell({ kind: 'changed', entry, before: isHeld ? entry.kind : undefined, job: undefined });
    }
    for (const waiting of this.#batchWaiters.get(batchKey(batch.tenant, batch.batchId)) ?? []) waiting.abort();
  }

  /** Its jobs, if any are left, go with it. */
  #removeBatch(key: string): void {
    const batch = this.#batches.get(key);
    if (!batch) return;
    const seen = [...batch.jobs].filter((entry) => !this.isHeld(entry));
    for (const entry of seen) this.#seen.remove(entry);
    batch.committed = undefined;
    if (batch.jobs.size === 0) this.#batches.delete(key);
    for (const entry of seen) this.#tell({ kind: 'changed', entry, before: entry.kind, job: undefined });
  }

  /** A mass cancel says nothing about how fast the mesh draws. */
  #noteEnd({ endedAtMs, kind, startedAtMs }: JobEntry, before: StateKind): void {
    if (!this.#complete || before !== 'running') return;
    if (kind === 'succeeded') this.#rate.ended(this.#clock.now(), endedAtMs - startedAtMs);
    else if (kind === 'failed') this.#rate.ended(this.#clock.now(), undefined);
  }

  #tell(what: JobChange): void {
    for (const listener of this.#listeners) listener(what);
    for (const listener of [...(this.#watchers.get(what.entry.key) ?? [])]) listener(what);
  }

  #batchFor(tenant: string, batchId: string): MutableBatch {
    const key = batchKey(tenant, batchId);
    const known = this.#batches.get(key);
    if (known) return known;
    const made: MutableBatch = { tenant, batchId, committed: undefined, jobs: new Set() };
    this.#batches.set(key, made);
    return made;
  }

  #share(text: string): string {
    const known = this.#shared.get(text);
    if (known !== undefined) return known;
    if (this.#shared.size >= SHARED_TEXTS) this.#shared.clear();
    this.#shared.set(text, text);
    return text;
  }
}
