/**
 * For processes that hand megabytes on. V8 counts buffers as heap that has grown and, while the heap
 * itself is small, collects all of it after every 16 MB: with answers of 1.5 MB that is every fourth
 * one, and half of a router's CPU. Here the next full collection waits until the heap has grown by
 * what it held several times over; buffers that die young are freed by the small collections between.
 *
 * Small collections come every dozen answers then, each with little to do. V8 shares them among
 * threads; waking those and waiting for the last of them takes longer than the work, most of all on a
 * busy machine: without, what a router adds to the p50 at 1.5 MB fell by a tenth to a quarter.
 *
 * The price is memory: with 20 MB of living objects some 100 MB of dead buffers may wait. Not for
 * processes with large heaps of their own.
 */
import { setFlagsFromString } from 'node:v8';

/** Heap growth between full collections, as percent of what survived the last. */
const GROWTH_PERCENT = 500;

const FLAGS = [
  `--heap-growing-percent=${GROWTH_PERCENT}`,
  '--no-parallel-scavenge',
  // Freed by the thread that allocates, a buffer's memory is used again while it is warm.
  '--no-concurrent-array-buffer-sweeping',
];

/** Call before any work: it holds for the whole process. A V8 that no longer knows a flag says so and passes over it. */
export function expectLargeBuffers(): void {
  for (const flag of FLAGS) setFlagsFromString(flag);
}
