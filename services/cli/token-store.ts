/**
 * The token file as an operator changes it: read, changed, and replaced by a rename, so that a router
 * reads the old one or the new one and never half of one. Only its owner can read it.
 */
import { randomBytes } from 'node:crypto';
import { open, readFile, rename, rm, stat } from 'node:fs/promises';
import { formatTokenFile, parseTokenFile, type Token } from '#access';

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

/** Refuses a list that a router would refuse. */
export async function writeTokens(file: string, tokens: readonly Token[]): Promise<void> {
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
