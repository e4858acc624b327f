/**
 * Pictures as files of a folder, for one machine or a folder that all replicas mount.
 *
 *   DIR/acme/3f/portrait-7.3f2c9a-2-0-3fa4….png     <tenant>/<first two digits of its SHA-256>/<rest of its name>
 *   DIR/.tmp/<random>                               being written
 *
 * A put writes elsewhere, has the disk keep it, and only then gives it its name (rename is all or nothing), so a
 * picture is whole or not there, whatever dies when. No tenant begins with a dot.
 */
import { randomUUID } from 'node:crypto';
import type { Stats } from 'node:fs';
import { mkdir, open, opendir, readdir, readFile, realpath, rename, rm, stat, statfs } from 'node:fs/promises';
import path from 'node:path';
import { ConfigError } from '#runtime';
import { parseBlobName, TENANT_FORM } from './blob-name.js';
import { type BlobStore, checked, type ListedBlob, partsOf } from './blob-store.js';
import { resultMissing, storeFull, storeUnavailable } from './status.js';

export interface FileStoreOptions {
  readonly dir: string;
  /** What the folder is called in the configuration. */
  readonly setting: string;
  /** Default 256. */
  readonly pageCount?: number;
  readonly wallNow: () => number;
}

const PRIVATE = 0o700;

export class FileStore implements BlobStore {
  readonly #options: FileStoreOptions;
  readonly #dir: string;
  readonly #temporaryDir: string;
  /** Folders that are known to outlive a loss of power. */
  readonly #keptFolders = new Set<string>();

  constructor(options: FileStoreOptions) {
    this.#options = options;
    this.#dir = path.resolve(options.dir);
    this.#temporaryDir = path.join(this.#dir, '.tmp');
  }

  async start(): Promise<void> {
    try {
      await makeRoot(this.#dir);
      await this.#keepFolder(this.#temporaryDir);
      const probe = path.join(this.#temporaryDir, randomUUID());
      await writeKept(probe, Buffer.from('probe'));
      await rm(probe);
    } catch (error) {
      const { setting } = this.#options;
      throw new ConfigError([`${setting}: expected a folder that can be written, got ${codeOf(error) ?? error} for ${this.#dir}`]);
    }
  }

  /** Rejects with a ConfigError where two started stores are one, or one lists what is in the other: moves would lose pictures. */
  async checkApart(other: FileStore): Promise<void> {
    const [ours, theirs] = await Promise.all([realpath(this.#dir), realpath(other.#dir)]);
    if (!lists(ours, theirs) && !lists(theirs, ours)) return;
    throw new ConfigError([`${other.#options.setting}: expected a folder apart from ${this.#dir}, got ${other.#dir}`]);
  }

  async put(name: string, bytes: Uint8Array): Promise<void> {
    const file = this.#fileOf(name);
    const temporary = path.join(this.#temporaryDir, randomUUID());
    try {
      await writeKept(temporary, bytes);
      await this.#give(temporary, file);
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => {}); // swept some day
      throw statusOf(error, 'writing');
    }
  }

  async read(name: string): Promise<Uint8Array> {
    try {
      return checked(name, await readFile(this.#fileOf(name)));
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw statusOf(error, 'reading');
      // A disk that is not mounted has lost nothing.
      await stat(this.#temporaryDir).catch((gone: unknown) => {
        throw statusOf(gone, 'reading');
      });
      throw resultMissing(name, error);
    }
  }

  async delete(name: string): Promise<void> {
    try {
      await rm(this.#fileOf(name), { force: true });
    } catch (error) {
      throw statusOf(error, 'removing');
    }
  }

  async *list(): AsyncIterable<readonly ListedBlob[]> {
    try {
      for (const tenant of await foldersIn(this.#dir)) {
        if (!TENANT_FORM.test(tenant)) continue;
        for (const fan of await foldersIn(path.join(this.#dir, tenant))) yield* this.#listFolder(tenant, fan);
      }
    } catch (error) {
      throw statusOf(error, 'listing');
    }
  }

  async sweepTemporary(ageMs: number): Promise<number> {
    const beforeMs = this.#options.wallNow() - ageMs;
    let count = 0;
    try {
      for (const leaf of await readdir(this.#temporaryDir)) {
        const file = path.join(this.#temporaryDir, leaf);
        const found = await statOf(file);
        if (!found?.isFile() || found.mtimeMs > beforeMs) continue;
        await rm(file, { force: true });
        count++;
      }
    } catch (error) {
      throw statusOf(error, 'sweeping');
    }
    return count;
  }

  async freeBytes(): Promise<number> {
    try {
      const { bavail, bsize } = await statfs(this.#temporaryDir);
      return bavail * bsize;
    } catch (error) {
      throw statusOf(error, 'asking for room');
    }
  }

  async link(): Promise<undefined> {
    return undefined;
  }

  close(): void {}

  #fileOf(name: string): string {
    const { tenant, sha256 } = partsOf(name);
    return path.join(this.#dir, tenant, sha256.slice(0, 2), path.posix.basename(name));
  }

  /** The name last: with its folder on disk before, and on disk itself when this resolves. */
  async #give(temporary: string, file: string): Promise<void> {
    const folder = path.dirname(file);
    try {
      await this.#keepFolder(path.dirname(folder));
      await this.#keepFolder(folder);
      await rename(temporary, file);
    } catch (error) {
      this.#keptFolders.clear(); // somebody may have removed empty ones: the next put makes them again
      throw error;
    }
    await keep(folder);
  }

  async #keepFolder(dir: string): Promise<void> {
    if (this.#keptFolders.has(dir)) return;
    await makeFolder(dir);
    // Also where it was there already: whoever made it may not have come to this line.
    await keep(path.dirname(dir));
    this.#keptFolders.add(dir);
  }

  async *#listFolder(tenant: string, fan: string): AsyncIterable<readonly ListedBlob[]> {
    const { pageCount = 256 } = this.#options;
    const folder = path.join(this.#dir, tenant, fan);
    let leaves: string[] = [];
    for await (const { name: leaf } of await opendir(folder)) {
      if (leaves.push(leaf) < pageCount) continue;
      yield await listed(tenant, folder, leaves);
      leaves = [];
    }
    if (leaves.length > 0) yield await listed(tenant, folder, leaves);
  }
}

/** What of a folder's files are pictures that belong there, and are still there. */
async function listed(tenant: string, folder: string, leaves: readonly string[]): Promise<readonly ListedBlob[]> {
  const blobs = leaves.map(async (leaf): Promise<ListedBlob | undefined> => {
    const name = `${tenant}/${leaf}`;
    const parts = parseBlobName(name);
    if (!parts?.sha256.startsWith(path.basename(folder))) return undefined;
    const found = await statOf(path.join(folder, leaf));
    return found?.isFile() ? { name, parts, sizeBytes: found.size, storedAtMs: found.mtimeMs } : undefined;
  });
  return (await Promise.all(blobs)).filter((blob) => blob !== undefined);
}

/** With its bytes on disk, though perhaps not yet its name. */
async function writeKept(file: string, bytes: Uint8Array): Promise<void> {
  const handle = await open(file, 'wx', 0o600);
  try {
    await handle.writeFile(bytes);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Has the disk keep the names in a folder. */
async function keep(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function makeFolder(dir: string): Promise<void> {
  await mkdir(dir, { mode: PRIVATE }).catch((error: unknown) => {
    if (codeOf(error) !== 'EEXIST') throw error;
  });
}

/** Not mkdir's `recursive`: where a parent exists and the child is called missing all the same, as in /proc, that tries for ever. */
async function makeRoot(dir: string): Promise<void> {
  const parent = path.dirname(dir);
  if ((await statOf(parent)) === undefined && parent !== dir) await makeRoot(parent);
  await makeFolder(dir);
  await keep(parent).catch((error: unknown) => {
    if (codeOf(error) !== 'EACCES') throw error; // whoever made it for us has seen to that
  });
}

/** Folders that begin with a dot are not looked into. */
function lists(outer: string, inner: string): boolean {
  return !path.relative(outer, inner).startsWith('.');
}

async function foldersIn(dir: string): Promise<string[]> {
  return (await readdir(dir, { withFileTypes: true })).filter((entry) => entry.isDirectory()).map((entry) => entry.name);
}

/** Undefined: it is not there, perhaps no longer. */
function statOf(file: string): Promise<Stats | undefined> {
  return stat(file).catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  });
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && error.code.startsWith('E') ? error.code : undefined;
}

/** The one table from the file system's errors to ours. What is none of its errors passes as it is. */
function statusOf(error: unknown, doing: string): unknown {
  const code = codeOf(error);
  if (code === undefined) return error;
  return code === 'ENOSPC' || code === 'EDQUOT' ? storeFull(code, error) : storeUnavailable(`${code} while ${doing}`, error);
}
