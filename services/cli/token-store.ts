/**
 * The token file as an operator changes it: read, changed, and replaced by a rename, so that a router
 * reads the old one or the new one and never half of one. Only its owner can read it. A lock file beside
 * it makes two who change it at once take turns.
 */
import { randomBytes } from 'node:crypto';
import { open, readFile, rename, rm, stat } from 'node:fs/promises';
import { formatTokenFile, parseTokenFile, type Token } from '#access';
import { systemClock } from '#runtime';

const LOCK_LOOK_MS = 20;
const LOCK_PATIENCE_MS = 3000;

/** The file cannot be used; each fault is a line. */
export class TokenFileError extends Error {
  override readonly name = 'TokenFileError';
}

/** No file is an empty list when `orNone`. */
export async function readTokens(file: string, orNone = false): Promise<readonly Token[]> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT' && orNone) return [];
    throw new TokenFileError(`${file}: expected a readable file, got ${String(code ?? error)}`);
  }
  return checked(file, text);
}

/** Replaces the list by what `change` makes of it; undefined: it stays. No file is an empty list when `orNone`. */
export async function changeTokens(
  file: string,
  change: (tokens: readonly Token[]) => readonly Token[] | undefined,
  { orNone = false }: { readonly orNone?: boolean } = {},
): Promise<void> {
  const lock = `${file}.lock`;
  await take(lock);
  try {
    const changed = change(await readTokens(file, orNone));
    if (changed) await writeTokens(file, changed);
  } finally {
    await rm(lock, { force: true });
  }
}

/** A change takes milliseconds; a lock that stays is that of a killed process, for a person to judge. */
async function take(lock: string): Promise<void> {
  for (let waitedMs = 0; ; waitedMs += LOCK_LOOK_MS) {
    try {
      return await (await open(lock, 'wx', 0o600)).close();
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : undefined;
      if (code !== 'EEXIST') throw new TokenFileError(`${lock}: ${error instanceof Error ? error.message : String(error)}`);
      if (waitedMs >= LOCK_PATIENCE_MS) {
        throw new TokenFileError(`${lock}: expected nobody to change the tokens for long; remove it when no other "dmesh token" runs`);
      }
      await systemClock.sleep(LOCK_LOOK_MS);
    }
  }
}

/** Refuses a list that a router would refuse. */
async function writeTokens(file: string, tokens: readonly Token[]): Promise<void> {
  const text = formatTokenFile(tokens);
  checked(file, text);
  const temporary = `${file}.${randomBytes(4).toString('hex')}`;
  try {
    const { uid, gid } = await stat(file).catch(() => ({ uid: undefined, gid: undefined }));
    const handle = await open(temporary, 'wx', 0o600);
    try {
      // A file that belongs to the router's account goes on belonging to it, where we may say so.
      if (uid !== undefined && gid !== undefined) await handle.chown(uid, gid).catch(() => {});
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw new TokenFileError(`${file}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function checked(file: string, text: string): readonly Token[] {
  const parsed = parseTokenFile(text);
  if (parsed.ok) return parsed.tokens;
  throw new TokenFileError(parsed.faults.map((fault) => `${file}: ${fault}`).join('\n'));
}
