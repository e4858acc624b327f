/**
 * Whose pictures lie in a folder already? A job whose pictures were fetched gets a line in a file beside them, so that
 * they are known when the mesh has forgotten the job. A note holds while its files have the bytes that were drawn.
 */
import { createHash, randomUUID } from 'node:crypto';
import { access, appendFile, readFile, rename } from 'node:fs/promises';
import path from 'node:path';

export interface NotedFile {
  /** Without its folder. */
  readonly name: string;
  readonly sha256: string;
}

/** The pictures of a job. */
export interface Note {
  readonly jobId: string;
  readonly files: readonly NotedFile[];
}

/** By job id: files that are there. */
export type Lying = ReadonlyMap<string, readonly NotedFile[]>;

/** One JSON object a line: what is added harms nothing that is there, nor does the half of one that somebody was killed over. */
const NOTES = '.dmesh-jobs.jsonl';

export async function noteFiles(dir: string, notes: readonly Note[]): Promise<void> {
  if (notes.length > 0) await appendFile(path.join(dir, NOTES), notes.map((note) => `\n${JSON.stringify(note)}`).join(''));
}

/** Of these jobs, those whose pictures lie there whole. */
export async function lyingIn(dir: string, jobIds: readonly string[]): Promise<Lying> {
  const notes = await readNotes(dir);
  const lying = new Map<string, readonly NotedFile[]>();
  for (const jobId of jobIds) {
    for (const files of notes.get(jobId) ?? []) {
      if (!(await areWhole(dir, files))) continue;
      lying.set(jobId, files);
      break;
    }
  }
  return lying;
}

/** Files that lie there whole, of jobs other than these. */
export async function olderIn(dir: string, jobIds: ReadonlySet<string>): Promise<string[]> {
  const found = new Set<string>();
  for (const [jobId, noted] of await readNotes(dir)) {
    if (jobIds.has(jobId)) continue;
    for (const file of noted.flat()) if (await areWhole(dir, [file])) found.add(path.join(dir, path.basename(file.name)));
  }
  return [...found].sort();
}

/**
 * Gives the pictures of a job other names each. All are put aside first, for one may have the name that another is to
 * have; the notes tell every name before it is one, so that nothing is lost whenever this is interrupted. Resolves with
 * those that could be moved, and files that had to go for them.
 */
export async function renameIn(
  dir: string,
  moves: readonly { readonly note: Note; readonly names: readonly string[] }[],
): Promise<{ renamed: Note[]; replaced: string[] }> {
  const steps = moves.map(({ note: { jobId, files }, names }) => {
    const as = (name: (index: number) => string): Note => ({
      jobId,
      files: files.map(({ sha256 }, index) => ({ name: name(index), sha256 })),
    });
    return { from: { jobId, files }, aside: as(() => `.${randomUUID()}.part`), to: as((index) => names[index] ?? '') };
  });
  await noteFiles(
    dir,
    steps.flatMap(({ aside, to }) => [aside, to]),
  );
  const aside = await filterAsync(steps, (step) => move(dir, step.from, step.aside));
  const replaced: string[] = [];
  for (const { to } of aside) for (const { name } of to.files) if (await exists(path.join(dir, name))) replaced.push(path.join(dir, name));
  const moved = await filterAsync(aside, (step) => move(dir, step.aside, step.to));
  return { renamed: moved.map(({ to }) => to), replaced };
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

async function areWhole(dir: string, files: readonly NotedFile[]): Promise<boolean> {
  for (const { name, sha256 } of files) if ((await digestOf(path.join(dir, path.basename(name)))) !== sha256) return false;
  return files.length > 0;
}

/** False: somebody else has moved it, or nobody may; then it is fetched as any other. */
async function move(dir: string, from: Note, to: Note): Promise<boolean> {
  try {
    for (const [index, { name }] of from.files.entries()) {
      await rename(path.join(dir, path.basename(name)), path.join(dir, to.files[index]?.name ?? ''));
    }
    return true;
  } catch {
    return false;
  }
}

async function filterAsync<T>(items: readonly T[], keeps: (item: T) => Promise<boolean>): Promise<T[]> {
  const kept: T[] = [];
  for (const item of items) if (await keeps(item)) kept.push(item);
  return kept;
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

/** By job, newest first. */
async function readNotes(dir: string): Promise<ReadonlyMap<string, readonly (readonly NotedFile[])[]>> {
  const text = await readFile(path.join(dir, NOTES), 'utf8').catch(() => ''); // none yet
  const notes = new Map<string, (readonly NotedFile[])[]>();
  for (const { jobId, files } of text.split('\n').reverse().flatMap(parseNote)) notes.set(jobId, [...(notes.get(jobId) ?? []), files]);
  return notes;
}

function parseNote(line: string): Note[] {
  try {
    const { jobId, files } = JSON.parse(line);
    const isRight = typeof jobId === 'string' && Array.isArray(files) && files.every(isNoted);
    return isRight ? [{ jobId, files }] : [];
  } catch {
    return [];
  }
}

function isNoted(file: Partial<NotedFile> | null): file is NotedFile {
  return typeof file?.name === 'string' && typeof file.sha256 === 'string';
}
