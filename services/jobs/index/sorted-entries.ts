/**
 * Jobs in the order in which they were submitted: which comes next, and how many come before? A sorted
 * list in chunks, so that to add or remove one moves a few hundred others at most, however many there are.
 */
import type { JobEntry } from './job-entry.js';

/** Where an entry is in the order; also of one that is not there any more. */
export type Place = Pick<JobEntry, 'submittedAtMs' | 'tenant' | 'jobId'>;

/** A chunk that grows beyond this is split in two. */
const MAX_CHUNK_SIZE = 512;

export class SortedEntries {
  /** None is empty. */
  readonly #chunks: JobEntry[][] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  add(entry: JobEntry): void {
    this.#size++;
    const at = Math.max(0, this.#chunkOf(entry));
    const chunk = this.#chunks[at];
    if (!chunk) return void this.#chunks.push([entry]);
    chunk.splice(rankIn(chunk, entry), 0, entry);
    if (chunk.length > MAX_CHUNK_SIZE) this.#chunks.splice(at + 1, 0, chunk.splice(chunk.length / 2));
  }

  remove(entry: JobEntry): void {
    const at = this.#chunkOf(entry);
    const chunk = this.#chunks[at];
    const index = chunk ? rankIn(chunk, entry) : 0;
    if (chunk?.[index] !== entry) return;
    this.#size--;
    chunk.splice(index, 1);
    if (chunk.length === 0) this.#chunks.splice(at, 1);
  }

  /** How many come before this place. */
  rank(place: Place): number {
    const at = this.#chunkOf(place);
    const chunk = this.#chunks[at];
    if (!chunk) return 0;
    let before = rankIn(chunk, place);
    for (let i = 0; i < at; i++) before += this.#chunks[i]?.length ?? 0;
    return before;
  }

  /** From the newest before `place` to the oldest. */
  *newestFirst(place: Place): Generator<JobEntry> {
    const start = this.#chunkOf(place);
    for (let at = start; at >= 0; at--) {
      const chunk = this.#chunks[at] ?? [];
      for (let i = (at === start ? rankIn(chunk, place) : chunk.length) - 1; i >= 0; i--) {
        const entry = chunk[i];
        if (entry) yield entry;
      }
    }
  }

  oldest(): JobEntry | undefined {
    return this.#chunks[0]?.[0];
  }

  /** The last chunk that does not begin after this place; -1 when all do. */
  #chunkOf(place: Place): number {
    return countBefore(this.#chunks.length, (i) => comparePlaces(this.#chunks[i]?.[0] ?? place, place) <= 0) - 1;
  }
}

export function comparePlaces(a: Place, b: Place): number {
  return a.submittedAtMs - b.submittedAtMs || compareTexts(a.jobId, b.jobId) || compareTexts(a.tenant, b.tenant);
}

function compareTexts(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function rankIn(chunk: readonly JobEntry[], place: Place): number {
  return countBefore(chunk.length, (i) => comparePlaces(chunk[i] ?? place, place) < 0);
}

/** Of `length` in order, how many `isBefore` holds for. */
function countBefore(length: number, isBefore: (index: number) => boolean): number {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (isBefore(middle)) low = middle + 1;
    else high = middle;
  }
  return low;
}
