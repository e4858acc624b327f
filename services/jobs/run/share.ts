/**
 * Which jobs are this replica's to run and look after? Follows the index and who lives, and tells those who care of
 * every job that has changed, or whose owner has. Until it is known who lives, nothing is ours.
 */

import type { Clock } from '#core';
import type { JobEntry } from '../index/job-entry.js';
import { type Candidate, candidate, ownerOf } from './ownership.js';

export interface LivingReplica {
  readonly id: string;
  readonly incarnation: string;
  /** It leaves, or cannot follow the records: it finishes what it has begun, and owns nothing. */
  readonly draining?: boolean | undefined;
}

export interface ShareListener {
  /** Told at each change of the job or of its owner, perhaps more often. */
  job(entry: JobEntry, mine: boolean): void;
  removed(key: string): void;
}

export interface ShareOptions {
  readonly clock: Clock;
  readonly replicaId: string;
  readonly incarnation: string;
  /** Another process has our id, and started later: all that belongs to the id is its own. */
  readonly onDisplaced: (by: LivingReplica) => void;
  /** Undefined: not known yet. */
  readonly replicas: () => readonly LivingReplica[] | undefined;
  readonly entries: () => Iterable<JobEntry>;
  readonly listeners: readonly ShareListener[];
}

/** As records name the replica that runs a job. */
export function workerName({ id, incarnation }: Pick<LivingReplica, 'id' | 'incarnation'>): string {
  return `${id}/${incarnation}`;
}

/** Of all jobs, so many between two looks at the world outside: a few milliseconds, also when all change hands. */
const AT_ONCE_COUNT = 1000;

export class Share {
  readonly #options: ShareOptions;
  #owners: readonly Candidate[] = [];
  #workers: ReadonlySet<string> = new Set();
  /** Who runs jobs is known. */
  #known = false;
  /** Another process has our id; see `onDisplaced`. */
  #isDisplaced = false;
  readonly #mine = new Set<string>();
  #cancelWalk = () => {};

  constructor(options: ShareOptions) {
    this.#options = options;
  }

  /** Of all jobs known; those of batches that are not committed included. */
  get size(): number {
    return this.#mine.size;
  }

  /** Replicas that jobs belong to; 0 while that is not known. */
  get ownerCount(): number {
    return this.#owners.length;
  }

  /** Of a job, as it was told last: who asks and who listens must not differ while a crowd changes hands. */
  isMine(key: string): boolean {
    return this.#mine.has(key);
  }

  /** Of anything, by its name, as things are now. */
  belongsHere(name: string): boolean {
    return !this.#isDisplaced && this.ownerOf(name) === this.#options.replicaId;
  }

  /** The id of the replica that it belongs to; undefined: of none that is known. */
  ownerOf(name: string): string | undefined {
    return ownerOf(name, this.#owners);
  }

  /** Until the other process of our id is gone. */
  get isDisplaced(): boolean {
    return this.#isDisplaced;
  }

  /** Whether this worker may still bring its result. Everybody lives until the contrary is known. */
  isAlive(worker: string): boolean {
    return !this.#known || this.#workers.has(worker);
  }

  /** It is new or has changed. */
  job(entry: JobEntry): void {
    const mine = this.belongsHere(entry.key);
    if (mine) this.#mine.add(entry.key);
    else this.#mine.delete(entry.key);
    for (const listener of this.#options.listeners) listener.job(entry, mine);
  }

  removed(key: string): void {
    this.#mine.delete(key);
    for (const listener of this.#options.listeners) listener.removed(key);
  }

  /** Somebody has come or gone, or it is known now who lives. All jobs are looked at, in slices. */
  replicasChanged(): void {
    const { incarnation, onDisplaced, replicaId } = this.#options;
    const replicas = this.#options.replicas();
    if (!replicas) return;
    const namesake = replicas.find((replica) => replica.id === replicaId && replica.incarnation !== incarnation);
    if (namesake && !this.#isDisplaced) onDisplaced(namesake);
    this.#isDisplaced = namesake !== undefined;
    this.#known = true;
    this.#owners = replicas.filter(({ draining = false }) => !draining).map(({ id }) => candidate(id));
    this.#workers = new Set(replicas.map(workerName));
    this.#cancelWalk(); // what it told holds, or is found to have changed again
    this.#walk(this.#options.entries()[Symbol.iterator]());
  }

  stop(): void {
    this.#cancelWalk();
  }

  /** What comes or goes meanwhile is told by itself. */
  #walk(rest: Iterator<JobEntry>): void {
    for (let count = 0; count < AT_ONCE_COUNT; count++) {
      const { done, value: entry } = rest.next();
      if (done) return;
      const mine = this.belongsHere(entry.key);
      if (mine !== this.#mine.has(entry.key) || (mine && entry.kind === 'running')) this.job(entry);
    }
    this.#cancelWalk = this.#options.clock.schedule(0, () => this.#walk(rest));
  }
}
