/** What does the machine say against a path that was typed? Its errno, in the words of the option. */
import { UsageError } from './arguments.js';

/** Another path would do. `at`: where it went wrong, which may be a folder above. */
const OBSTACLES: Readonly<Record<string, (at: string) => string>> = {
  EEXIST: (at) => `${at} is no folder`,
  ENOTDIR: (at) => `${at} leads through a file`,
  EISDIR: (at) => `${at} is a folder`,
  ENOENT: (at) => `nothing can be made at ${at}`,
  EACCES: (at) => `no right to write to ${at}`,
  EPERM: (at) => `no right to write to ${at}`,
  EROFS: (at) => `nothing can be written to ${at}`,
  ENAMETOOLONG: () => 'the name is too long',
  ELOOP: (at) => `${at} is a link to itself`,
};

export interface TypedPath {
  /** Such as "--out". */
  readonly option: string;
  /** Such as "a file that can be written". */
  readonly expects: string;
  readonly path: string;
}

/** Throws UsageError where `work` fails for the path; all else comes through, a full disk with the name of the path. */
export async function writingTo<T>({ option, expects, path }: TypedPath, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!isOfFile(error)) throw error;
    const obstacle = OBSTACLES[error.code]?.(error.dest ?? error.path ?? path);
    if (obstacle !== undefined) throw new UsageError([`${option}: expected ${expects}, got ${JSON.stringify(path)}: ${obstacle}`]);
    throw new Error(`${option}: ${JSON.stringify(path)} could not be written: ${error.message}`, { cause: error });
  }
}

interface FileError extends Error {
  readonly code: string;
  readonly path?: string;
  /** Of a rename. */
  readonly dest?: string;
}

function isOfFile(error: unknown): error is FileError {
  return error instanceof Error && 'errno' in error && 'syscall' in error && 'code' in error && typeof error.code === 'string';
}
