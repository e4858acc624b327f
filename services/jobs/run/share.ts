/**
 * Which jobs are this replica's to run and look after? Follows the index and who lives, and tells those who care of
 * every job that has changed, or whose owner has. Until it is known who lives, nothing is ours.
 */

import type { JobEntry } from '../index/job-entry.js';
import { ownerOf } from './ownership.js';

export interface LivingReplica {
  readonly id: string;
  readonly incarnation: string;
  /** It leaves: it finishes what it has begun, and owns nothing. */
  readonly draining?: boolean | undefined;
}

export interface ShareListener {
  /** Told at each change of the job or of its owner, perhaps more often. */
  job(entry: JobEntry, mine: boolean): void;
  removed(key: string): void;
}

export interface ShareOptions {
  readonly replicaId: string;
  /** Undefined: not known yet. */
  readonly replicas: () => readonly LivingReplica[] | undefined;
  readonly entries: () => Iterable<JobEntry>;
  readonly listeners: readonly ShareListener[];
}

/** As records name the replica that runs a job. */
export function workerName({ id, incarnation }: Pick<LivingReplica, 'id' | 'incarnation'>): string {
  return `${id}/${incarnation}`;
}

export class Share {
  readonly #options: ShareOptions;
  #ownerIds: readonly string[] = [];
  #workers: ReadonlySet<string> = new Set();
  /** Who runs jobs is known. */
  #known = false;
  readonly #mine = new Set<string>();

  constructor(options: ShareOptions) {
    this.#options = options;
  }

  /** Of all jobs known; those of batches that are not committed included. */
  get size(): number {
    return this.#mine.size;
  }

  isMine(key: string): boolean {
    return ownerOf(key, this.#ownerIds) === this.#options.replicaId;
  }

  /** Whether this worker may still bring its result. Everybody lives until the contrary is known. */
  isAlive(worker: string): boolean {
    return !this.#known || this.#workers.has(worker);
  }

  /** It is new or has changed. */
  job(entry: JobEntry): void {
    const mine = this.isMine(entry.key);
    if (mine) this.#mine.add(entry.key);
    else this.#mine.delete(entry.key);
    for (const listener of this.#options.listeners) listener.job(entry, mine);
  }

  removed(key: string): void {
    this.#mine.delete(key);
    for (const listener of this.#options.listeners) listener.removed(key);
  }

  /** Somebody has come or gone, or it is known now who lives. O(n) in all jobs. */
  replicasChanged(): void {
    const replicas = this.#options.replicas();
    if (!replicas) return;
    this.#known = true;
    this.#ownerIds = replicas.filter(({ draining = false }) => !draining).map(({ id }) => id);
    this.#workers = new Set(replicas.map(workerName));
    for (const entry of this.#options.entries()) {
      const mine = this.isMine(entry.key);
      if (mine !== this.#mine.has(entry.key) || (mine && entry.kind === 'running')) this.job(entry);
    }
  }
}
