/**
 * Is there room for another job's pictures? Asked before a job is taken in: what was taken in must not fail for want
 * of a disk. All jobs not yet drawn are counted with what they may come to, and a reserve stays free besides.
 */
import type { Clock } from '#core';
import type { BlobStore } from './blob-store.js';
import { storeFull } from './status.js';

export interface RoomOptions {
  readonly store: Pick<BlobStore, 'freeBytes'>;
  readonly reserveBytes: number;
  readonly clock: Clock;
}

/** Thousands of jobs a second ask; a disk does not fill faster than this. */
const FRESH_MS = 1000;

/** A function that rejects with STORE_FULL when `promisedBytes` more would not fit. */
export function roomCheck({ store, reserveBytes, clock }: RoomOptions): (promisedBytes: number) => Promise<void> {
  let last: { readonly askedAt: number; readonly freeBytes: Promise<number | undefined> } | undefined;
  return async (promisedBytes) => {
    if (last === undefined || clock.now() - last.askedAt >= FRESH_MS) last = { askedAt: clock.now(), freeBytes: store.freeBytes() };
    const freeBytes = await last.freeBytes;
    if (freeBytes === undefined || freeBytes - promisedBytes >= reserveBytes) return;
    throw storeFull(`${freeBytes} bytes are free, ${promisedBytes} are promised to jobs and ${reserveBytes} are kept in reserve`);
  };
}
