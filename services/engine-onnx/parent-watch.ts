/**
 * An engine whose node is gone has nobody to work for. A node killed with SIGKILL cannot tell its
 * children, so the child looks, twice a second.
 */
import type { Clock } from '#core';

const LOOK_EVERY_MS = 500;

/** Calls `onGone` once; the returned function stops looking. */
export function watchParent(isAlive: () => boolean, clock: Clock, onGone: () => void): () => void {
  let cancel = () => {};
  const look = () => {
    if (isAlive()) cancel = clock.schedule(LOOK_EVERY_MS, look);
    else onGone();
  };
  look();
  return () => cancel();
}
