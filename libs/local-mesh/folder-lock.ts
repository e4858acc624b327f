/**
 * One mesh for one folder: a file in it names the processes that work there. Two nats-servers on one store
 * would mix their records up.
 *
 * Not only the one that starts the mesh counts, since what it started may outlive it for a while. A file whose
 * processes are all gone is taken over (libs/runtime/process-life.ts).
 */
import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { processStart, stillRuns, systemClock, thisProcess } from '#runtime';

export interface FolderLock {
  /** Who holds it as well from now on, in place of those named before. */
  shareWith(processes: readonly { readonly id: string; readonly pid: number }[]): void;
  release(): void;
}

interface Holder {
  readonly id: string;
  readonly pid: number;
  /** See libs/runtime/process-life.ts. */
  readonly start: string;
}

/** A process that died while it looked cannot block the next for longer. */
const GATE_STALE_MS = 5000;
const GATE_POLL_MS = 20;

/** Makes the folder where it is missing. Rejects with a sentence that names the holder. */
export async function lockFolder(dir: string): Promise<FolderLock> {
  mkdirSync(dir, { recursive: true });
  const file = path.join(dir, 'mesh.lock');
  const self = holder('dmesh', thisProcess.pid);
  const write = (holders: readonly Holder[]) => {
    const draft = `${file}.${thisProcess.pid}`;
    writeFileSync(draft, JSON.stringify(holders), { mode: 0o600 });
    renameSync(draft, file); // whole or not at all
  };
  const gate = `${file}.gate`;
  while (!enter(gate)) await systemClock.sleep(GATE_POLL_MS);
  try {
    const living = readHolders(file).find(({ pid, start }) => stillRuns(pid, start));
    if (living) {
      throw new Error(
        `${dir} is in use by another mesh (${living.id}, process ${living.pid}): stop that one first, or keep this one's in another folder`,
      );
    }
    write([self]);
  } finally {
    rmSync(gate, { force: true });
  }
  return {
    shareWith: (processes) => write([self, ...processes.map(({ id, pid }) => holder(id, pid))]),
    release: () => rmSync(file, { force: true }),
  };
}

/** One at a time looks and writes. */
function enter(gate: string): boolean {
  try {
    writeFileSync(gate, '', { flag: 'wx' });
    return true;
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  }
  const madeAt = statSync(gate, { throwIfNoEntry: false })?.mtimeMs;
  if (madeAt !== undefined && Date.now() - madeAt > GATE_STALE_MS) rmSync(gate, { force: true });
  return false;
}

function holder(id: string, pid: number): Holder {
  return { id, pid, start: processStart(pid) };
}

/** None for a file that is not there or says nothing: nobody to respect. */
function readHolders(file: string): Holder[] {
  try {
    const list: unknown = JSON.parse(readFileSync(file, 'utf8'));
    return Array.isArray(list) ? list.filter((each): each is Holder => Number.isInteger(each?.pid) && each.pid > 0) : [];
  } catch {
    return [];
  }
}
