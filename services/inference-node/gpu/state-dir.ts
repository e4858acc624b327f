/**
 * The folder of locks and sockets: made where it is missing, and written to once, so that a folder of
 * no use is told in one line when the node starts instead of at the first engine. A file system that
 * does not answer (a network's) is not waited for.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Clock } from '#core';

const ANSWER_MS = 5000;

/** Rejects, naming the setting and the reason, when nothing can be kept there. */
export async function makeStateDir(dir: string, clock: Clock): Promise<void> {
  const over = new AbortController();
  const late = clock.sleep(ANSWER_MS, over.signal).then(() => {
    throw new Error(`the file system does not answer within ${ANSWER_MS} ms`);
  });
  late.catch(() => {}); // of no interest once the folder is there
  try {
    await Promise.race([make(dir).then(() => tryWriting(dir)), late]);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`DMESH_NODE_STATE_DIR: expected a folder that can be written, got ${dir}: ${reason}`, { cause });
  } finally {
    over.abort();
  }
}

/** Not mkdir's `recursive`: where a parent exists and the child is called missing all the same, as in /proc, that tries for ever. */
async function make(dir: string): Promise<void> {
  try {
    await mkdir(dir, { mode: 0o700 });
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : '';
    if (code === 'ENOENT' && !(await isFolder(path.dirname(dir)))) {
      await make(path.dirname(dir));
      return make(dir);
    }
    if (await isFolder(dir)) return;
    throw error;
  }
}

async function isFolder(dir: string): Promise<boolean> {
  return stat(dir).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

async function tryWriting(dir: string): Promise<void> {
  const probe = path.join(dir, `probe-${randomUUID()}`);
  await writeFile(probe, '', { mode: 0o600 });
  await rm(probe, { force: true });
}
