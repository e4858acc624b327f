/**
 * Does the engine hold more and more, over hours? Libraries leak. Before it fails in the middle of a picture, a fresh engine takes
 * its place between two: asked for once in the life of each engine, and not of one that is young, so that a limit set too low costs
 * a restart now and then, not the node.
 */
import type { Clock, Emit } from '#core';
import type { NodeEvent } from '../events.js';
import type { LiveEngine } from './supervisor.js';

export interface MemoryWatchOptions {
  /** What the engine may say it uses; 0: anything. */
  readonly limitBytes: number;
  readonly clock: Clock;
  readonly emit: Emit<NodeEvent>;
  readonly engine: () => Pick<LiveEngine, 'connection'> | undefined;
  /** As soon as nothing runs. */
  readonly reload: () => void;
}

const LOOK_EVERY_MS = 30_000;
const YOUNG_MS = 10 * 60_000;

/** The function returned ends it. */
export function watchMemory({ limitBytes, clock, emit, engine, reload }: MemoryWatchOptions): () => void {
  if (limitBytes === 0) return () => {};
  let known: Pick<LiveEngine, 'connection'> | undefined;
  let oldAt = 0;
  const look = async () => {
    const now = engine();
    if (now && now !== known) {
      known = now;
      oldAt = clock.now() + YOUNG_MS;
    } else if (now && clock.now() >= oldAt) {
      const usedBytes = await now.connection.status().then(
        ({ memoryUsedBytes }) => Number(memoryUsedBytes),
        () => 0, // what does not answer is for others to notice
      );
      if (usedBytes <= limitBytes) return;
      oldAt = Number.POSITIVE_INFINITY;
      emit({ type: 'engineOutgrown', usedBytes, limitBytes });
      reload();
    }
  };
  let cancel = () => {};
  const again = () => {
    cancel = clock.schedule(LOOK_EVERY_MS, () => {
      void look();
      again();
    });
  };
  again();
  return () => cancel();
}
