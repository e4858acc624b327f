/**
 * For processes that hand megabytes on. V8 counts buffers as heap that has grown and, while the heap
 * itself is small, collects all of it after every 16 MB: with answers of 1.5 MB that is every fourth
 * one, and half of a router's CPU. Here the next full collection waits until the heap has grown by
 * what it held several times over; buffers that die young are freed by the small collections between.
 *
 * The price is memory: with 20 MB of living objects some 100 MB of dead buffers may wait. Not for
 * processes with large heaps of their own.
 */
import { setFlagsFromString } from 'node:v8';

/** Heap growth between full collections, as percent of what survived the last. */
const GROWTH_PERCENT = 500;

/** Call before any work: it holds for the whole process. */
export function expectLargeBuffers(): void {
  setFlagsFromString(`--heap-growing-percent=${GROWTH_PERCENT}`);
}
