/** CPU time of other processes, from the operating system's own accounting (Linux). */
import { readdirSync, readFileSync } from 'node:fs';

/**
 * User and system time of these processes and whatever they started, milliseconds. Exact to the
 * microsecond where the kernel keeps scheduler statistics, else to its tick of 10 ms.
 */
export function cpuMs(pids: readonly number[]): number {
  return pids.flatMap(family).reduce((sum, pid) => sum + ownCpuMs(pid), 0);
}

const TICK_MS = 10; // USER_HZ is 100 on every Linux of today

function ownCpuMs(pid: number): number {
  try {
    const times = tasks(pid).map((task) => Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]));
    return times.reduce((sum, ns) => sum + ns, 0) / 1e6;
  } catch {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
  }
}

function family(pid: number): number[] {
  const children = tasks(pid).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
  );
  return [pid, ...children.flatMap(family)];
}

function tasks(pid: number): string[] {
  return readdirSync(`/proc/${pid}/task`);
}
