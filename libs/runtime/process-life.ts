/**
 * Does a process still run? Its start time tells it from a later one with the same id (Linux only; elsewhere
 * the id alone decides).
 */
import { readFileSync } from 'node:fs';

/** Also under another user. */
export function processExists(pid: number): boolean {
  try {
    return process.kill(pid, 0); // sends nothing, only asks
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM'; // it lives under another user
  }
}

/** In clock ticks since the machine started; empty where /proc does not tell. */
export function processStart(pid: number): string {
  try {
    // Field 22 of /proc/PID/stat; the name in field 2 may itself hold spaces and parentheses.
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  } catch {
    return '';
  }
}

/** `start`: what processStart said of it then. */
export function stillRuns(pid: number, start: string): boolean {
  return processExists(pid) && start === processStart(pid);
}
