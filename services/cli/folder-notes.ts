/**
 * Whose pictures lie in a folder already? A job whose pictures were fetched gets a line in a file beside them, so that
 * they are known when the mesh has forgotten the job. A note holds while its files have the bytes that were drawn.
 */
import { createHash } from 'node:crypto';
import { appendFile, readFile } from 'node:fs/promises';
import path from 'node:path';

export interface NotedFile {
  /** Without its folder. */
  readonly name: string;
  readonly sha256: string;
}

/** By job id: files that are there, with their folder. */
export type Lying = ReadonlyMap<string, readonly string[]>;

/** One JSON object a line: what is added harms nothing that is there, nor does the half of one that somebody was killed over. */
const NOTES = '.dmesh-jobs.jsonl';

export async function noteFiles(dir: string, jobId: string, files: readonly NotedFile[]): Promise<void> {
  await appendFile(path.join(dir, NOTES), `\n${JSON.stringify({ jobId, files })}`);
}

/** Of these jobs, those whose pictures lie there whole. */
export async function lyingIn(dir: string, jobIds: readonly string[]): Promise<Lying> {
  const notes = await readNotes(dir);
  const lying = new Map<string, readonly string[]>();
  for (const jobId of jobIds) {
    const files = notes.get(jobId) ?? [];
    const found: string[] = [];
    for (const { name, sha256 } of files) {
      const file = path.join(dir, path.basename(name));
      if ((await digestOf(file)) === sha256) found.push(file);
    }
    if (files.length > 0 && found.length === files.length) lying.set(jobId, found);
  }
  return lying;
}

/** SHA-256 in hex; undefined when there is no such file, or it cannot be read. */
export async function digestOf(file: string): Promise<string | undefined> {
  try {
    return createHash('sha256')
      .update(await readFile(file))
      .digest('hex');
  } catch {
    return undefined;
  }
}

async function readNotes(dir: string): Promise<ReadonlyMap<string, readonly NotedFile[]>> {
  const text = await readFile(path.join(dir, NOTES), 'utf8').catch(() => ''); // none yet
  return new Map(text.split('\n').flatMap(parseNote));
}

function parseNote(line: string): [string, readonly NotedFile[]][] {
  try {
    const { jobId, files } = JSON.parse(line);
    const isRight = typeof jobId === 'string' && Array.isArray(files) && files.every(isNoted);
    return isRight ? [[jobId, files]] : [];
  } catch {
    return [];
  }
}

function isNoted(file: Partial<NotedFile> | null): file is NotedFile {
  return typeof file?.name === 'string' && typeof file.sha256 === 'string';
}
