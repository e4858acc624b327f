/**
 * A process that `dmesh up`, a node or a test has started must not outlive it, not even when it was
 * killed and could say nothing. Such a child is told the process id and looks twice a second whether
 * that process is still there.
 *
 * A direct child watches its parent process id, which changes at the parent's death even while the
 * dead parent waits to be reaped; a grandchild that inherited the setting asks for the process.
 */
import { processExists } from './process-life.js';

const LOOK_EVERY_MS = 500;

/** Calls back once when that process is gone; the function returned stops looking. Without a process id (0, NaN): never. */
export function watchParent(pid: number, onGone: () => void): () => void {
  if (!Number.isSafeInteger(pid) || pid <= 0) return () => {};
  const isDirectChild = process.ppid === pid;
  const timer = setInterval(() => {
    if (isDirectChild ? process.ppid === pid : processExists(pid)) return;
    clearInterval(timer);
    onGone();
  }, LOOK_EVERY_MS);
  timer.unref();
  return () => clearInterval(timer);
}
