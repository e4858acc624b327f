/**
 * Opens files that settings name, and nothing else: a pipe would be waited for as long as nobody has its
 * other end, during which the process cannot even exit, and a device may have no end at all.
 */
import { constants, type Stats } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';

/** The error's `code` says what stands there instead. */
export async function openRegularFile(file: string, flags: number, mode?: number): Promise<FileHandle> {
  const handle = await open(file, flags | constants.O_NONBLOCK, mode).catch((error: unknown) => {
    // Without waiting there is no writing to a pipe that nobody reads.
    throw error instanceof Error && 'code' in error && error.code === 'ENXIO' ? notRegular('a pipe or a socket') : error;
  });
  const kind = otherKind(await handle.stat());
  if (kind === undefined) return handle;
  await handle.close();
  throw notRegular(kind);
}

/** What it is, where it is not a regular file. */
export function otherKind(stats: Stats): string | undefined {
  if (stats.isFile()) return undefined;
  if (stats.isDirectory()) return 'a folder';
  return stats.isFIFO() || stats.isSocket() ? 'a pipe or a socket' : 'a device';
}

function notRegular(kind: string): Error {
  return Object.assign(new Error(`expected a regular file, got ${kind}`), { code: kind });
}
