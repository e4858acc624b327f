/**
 * A process that `dmesh up` or a test has started must not outlive it, not even when it was killed
 * and could say nothing. Such a child is given DMESH_PARENT_PID and asks once a second whether that
 * process is still there.
 *
 * A direct child watches its parent process id, which changes at the parent's death even while the
 * dead parent waits to be reaped; a grandchild that inherited the setting asks for the process.
 */
import type { Env } from './env.js';

const POLL_MS = 1000;

/** Calls back once when the process named by DMESH_PARENT_PID is gone. Without the setting: never. */
export function watchParent(env: Env, onGone: () => void): void {
  const parentPid = Number(env.DMESH_PARENT_PID);
  if (!Number.isSafeInteger(parentPid) || parentPid <= 0) return;
  const isDirectChild = process.ppid === parentPid;
  const timer = setInterval(() => {
    if (isDirectChild ? process.ppid === parentPid : exists(parentPid)) return;
    clearInterval(timer);
    onGone();
  }, POLL_MS);
  timer.unref();
}

function exists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'; // it lives under another user
  }
}
