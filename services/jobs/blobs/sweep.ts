/**
 * One round of housekeeping in the store: what no record names is removed, what is old moves to the archive, and what
 * puts that never ended have left behind goes. Every replica looks after its own share; two that look at the same
 * picture do no harm.
 *
 * A picture is stored before its record names it, so only those past a grace period are asked about. It is long, because
 * records that are lost, or looked for in the wrong NATS, must not take the pictures with them at once.
 */
import { Reason, StatusError } from '#core';
import type { BlobStore, ListedBlob } from './blob-store.js';

export interface SweepOptions {
  /**
   * Whether a record names this picture, or an attempt that still runs may yet come to name it. Asked only of pictures
   * older than the grace period. When it rejects, the sweep ends there, with nothing removed for it.
   */
  readonly isNamed: (blob: ListedBlob) => Promise<boolean>;
  /** This replica's share, so that each picture is looked at by one. */
  readonly isMine: (jobId: string) => boolean;
  readonly signal: AbortSignal;
}

export interface SweepFigures {
  /** What is left of this replica's share. */
  readonly liveCount: number;
  readonly liveBytes: number;
  readonly archivedCount: number;
  readonly archivedBytes: number;
  /** Done by this sweep. */
  readonly orphanCount: number;
  readonly movedCount: number;
  readonly temporaryCount: number;
  /** Found damaged when they were to be moved; they stay where they are. */
  readonly damagedCount: number;
  /** Could not be removed or moved; the next sweep tries again. */
  readonly failedCount: number;
}

type Tally = { -readonly [Figure in keyof SweepFigures]: SweepFigures[Figure] };

export interface Places {
  readonly live: BlobStore;
  readonly archive: BlobStore;
}

export interface SweepRules {
  readonly orphanAfterMs: number;
  /** 0: never. */
  readonly archiveAfterMs: number;
  readonly wallNow: () => number;
}

/** Longer than any put takes. */
const TEMPORARY_AFTER_MS = 3_600_000;

/** Rejects when the store cannot be listed, when `isNamed` does, and with the signal's reason. */
export async function sweep(places: Places, rules: SweepRules, options: SweepOptions): Promise<SweepFigures> {
  const { isMine, isNamed, signal } = options;
  const tally = nothingYet();
  for (const where of ['live', 'archive'] as const) {
    for await (const page of places[where].list()) {
      for (const blob of page) {
        signal.throwIfAborted();
        if (!isMine(blob.parts.jobId)) continue;
        const ageMs = rules.wallNow() - blob.storedAtMs;
        const orphaned = ageMs >= rules.orphanAfterMs && !(await isNamed(blob));
        const old = where === 'live' && rules.archiveAfterMs > 0 && ageMs >= rules.archiveAfterMs;
        const gone = orphaned ? await remove(places[where], blob, tally) : old && (await move(places, blob, tally));
        if (gone) continue;
        const [count, bytes] = where === 'live' ? (['liveCount', 'liveBytes'] as const) : (['archivedCount', 'archivedBytes'] as const);
        tally[count]++;
        tally[bytes] += blob.sizeBytes;
      }
    }
    tally.temporaryCount += await places[where].sweepTemporary(TEMPORARY_AFTER_MS);
  }
  return tally;
}

async function remove(store: BlobStore, { name }: ListedBlob, tally: Tally): Promise<boolean> {
  try {
    await store.delete(name);
    tally.orphanCount++;
    return true;
  } catch {
    tally.failedCount++; // the store has told why
    return false;
  }
}

/**
 * First there, then no longer here: a kill in between leaves both, which the next sweep ends, and who reads looks
 * here first and there second, so finds it at every moment.
 */
async function move({ live, archive }: Places, { name }: ListedBlob, tally: Tally): Promise<boolean> {
  try {
    await archive.put(name, await live.read(name));
    await live.delete(name);
    tally.movedCount++;
    return true;
  } catch (error) {
    const { reason } = StatusError.from(error);
    if (reason === Reason.RESULT_MISSING) return true; // deleted, or moved by somebody else
    if (reason === Reason.RESULT_DAMAGED) tally.damagedCount++;
    else tally.failedCount++;
    return false;
  }
}

function nothingYet(): Tally {
  const left = { liveCount: 0, liveBytes: 0, archivedCount: 0, archivedBytes: 0 };
  return { ...left, orphanCount: 0, movedCount: 0, temporaryCount: 0, damagedCount: 0, failedCount: 0 };
}
