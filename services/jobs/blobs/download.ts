export interface BlobPiece {
  /** At most 256 KiB. */
  readonly data: Uint8Array;
  readonly offset: number;
  readonly totalBytes: number;
}
