/**
 * One node for one GPU: a file whose existence is the lock, saying who holds it.
 *
 * A node that was killed leaves its file behind. It is taken over when the process it names is gone
 * (libs/runtime/process-life.ts). Two nodes that find the same stale file are kept apart by a second such
 * file, held for the moment of the change.
 */
import { link, readFile, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Clock } from '#core';
import { processStart, stillRuns } from '#runtime';
import { makeStateDir } from './state-dir.js';

export interface LockOwner {
  readonly nodeId: string;
  readonly pid: number;
  /** See libs/runtime/process-life.ts. */
  readonly processStart: string;
}

export interface LockOptions {
  readonly dir: string;
  /** What is locked, such as a GPU's UUID. */
  readonly name: string;
  readonly nodeId: string;
  readonly pid: number;
  readonly clock: Clock;
}

/** The GPU belongs to another node; the message says to which. */
export class LockHeld extends Error {
  override readonly name = 'LockHeld';
  constructor(
    readonly lockName: string,
    readonly owner: LockOwner,
    file: string,
  ) {
    super(`${lockName} is owned by node ${owner.nodeId}, process ${owner.pid} (${file})`);
  }
}

/** A node that died within a takeover cannot block the next for longer. */
const TAKEOVER_STALE_MS = 5000;
const TAKEOVER_POLL_MS = 20;

/** Resolves with the release. Rejects with LockHeld, or when the folder cannot be made. */
export async function lockGpu(options: LockOptions): Promise<() => Promise<void>> {
  const { dir, nodeId, pid } = options;
  await makeStateDir(dir, options.clock);
  const file = path.join(dir, `${options.name.replace(/[^A-Za-z0-9_-]/g, '-')}.lock`);
  const owner: LockOwner = { nodeId, pid, processStart: processStart(pid) };
  if (!(await create(file, owner))) await takeOver(file, owner, options);
  return () => release(file, owner);
}

async function takeOver(file: string, owner: LockOwner, { name, clock }: LockOptions): Promise<void> {
  const gate = `${file}.takeover`;
  for (;;) {
    const holder = await readOwner(file);
    if (holder && stillRuns(holder.pid, holder.processStart)) throw new LockHeld(name, holder, file);
    if (await create(gate, owner)) break;
    if ((await ageMs(gate)) > TAKEOVER_STALE_MS) await rm(gate, { force: true });
    await clock.sleep(TAKEOVER_POLL_MS);
  }
  try {
    const holder = await readOwner(file);
    if (holder && stillRuns(holder.pid, holder.processStart)) throw new LockHeld(name, holder, file);
    await rm(file, { force: true });
    if (!(await create(file, owner))) throw new LockHeld(name, (await readOwner(file)) ?? owner, file);
  } finally {
    await rm(gate, { force: true });
  }
}

/** False when it exists. A link appears with its content or not at all, so nobody reads a half-written owner. */
async function create(file: string, owner: LockOwner): Promise<boolean> {
  const draft = `${file}.${owner.pid}.${owner.nodeId}`;
  await writeFile(draft, JSON.stringify(owner), { mode: 0o600 });
  try {
    await link(draft, file);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false;
    throw error;
  } finally {
    await rm(draft, { force: true });
  }
}

/** Undefined for a file that is gone or says nothing: nobody to respect. */
async function readOwner(file: string): Promise<LockOwner | undefined> {
  try {
    const { nodeId, pid, processStart: start } = JSON.parse(await readFile(file, 'utf8')) as Partial<LockOwner>;
    return typeof nodeId === 'string' && Number.isInteger(pid)
      ? { nodeId, pid: Number(pid), processStart: String(start ?? '') }
      : undefined;
  } catch {
    return undefined;
  }
}

async function release(file: string, owner: LockOwner): Promise<void> {
  const holder = await readOwner(file);
  if (holder?.pid === owner.pid && holder.processStart === owner.processStart) await rm(file, { force: true });
}

async function ageMs(file: string): Promise<number> {
  try {
    return Date.now() - (await stat(file)).mtimeMs;
  } catch {
    return 0; // gone meanwhile
  }
}
