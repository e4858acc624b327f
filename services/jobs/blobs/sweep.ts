import type { ListedBlob } from './blob-store.js';

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
  /** Of this replica's share, what is left. */
  readonly liveCount: number;
  readonly liveBytes: number;
  readonly archivedCount: number;
  readonly archivedBytes: number;
  /** Done by this sweep. */
  readonly orphanCount: number;
  readonly movedCount: number;
  readonly damagedCount: number;
  readonly temporaryCount: number;
}
