/**
 * Where does the picture go, and in which format? Judged before anything is drawn: a picture that
 * cannot be saved is GPU time lost.
 */
import { access, constants, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Arguments } from './arguments.js';
import { FORMATS, type Format, fileNameOf, formatOfFile } from './pictures.js';

export interface Output {
  readonly file: string;
  /** Undefined: the mesh's default. */
  readonly format: Format | undefined;
}

/** From --out and --format. `folder` is where a picture without --out goes. Faults are left in `read`. */
export async function readOutput(read: Arguments, prompt: string, folder = ''): Promise<Output> {
  const asked = read.choice('format', FORMATS);
  const out = read.text('out');
  const named = fileNameOf(prompt, asked ?? 'png');
  const file = out ?? path.join(folder, named);
  const quoted = JSON.stringify(file);

  const found = await kindOf(file);
  if (found === 'folder' || /(^|[/\\])\.{0,2}$/.test(file)) {
    read.fault(`--out: expected a file name, got the folder ${quoted}`, `--out ${path.join(file, named)}`);
    return { file, format: asked };
  }
  const extension = path.extname(file);
  const format = formatOfFile(file);
  if (extension !== '' && format === undefined) {
    const instead = fileNameOf('', asked ?? 'png').replace('picture', file.slice(0, -extension.length));
    read.fault(`--out: expected a name that ends in .png, .jpg, .jpeg or .webp, got ${quoted}`, `--out ${instead}`);
  } else if (asked !== undefined && format !== undefined && asked !== format) {
    read.fault(`--format: expected ${format}, as --out ${quoted} says, got "${asked}"`, 'one of the two is enough');
  }
  const obstacle = await obstacleTo(file, found);
  if (obstacle !== undefined) read.fault(`--out: expected a file that can be written, got ${quoted}: ${obstacle}`);
  return { file, format: asked ?? format };
}

type Kind = 'folder' | 'file' | 'absent';

async function kindOf(file: string): Promise<Kind> {
  try {
    return (await stat(file)).isDirectory() ? 'folder' : 'file';
  } catch {
    return 'absent'; // or out of reach, which its folder shows
  }
}

/** Missing folders are made later, so the nearest one that exists decides. */
async function obstacleTo(file: string, found: Kind): Promise<string | undefined> {
  let nearest = path.resolve(file);
  let kind = found;
  while (kind === 'absent' && nearest !== path.dirname(nearest)) {
    nearest = path.dirname(nearest);
    kind = await kindOf(nearest);
    if (kind === 'file') return `${nearest} is no folder`;
  }
  try {
    await access(nearest, constants.W_OK);
    return undefined;
  } catch {
    return `no right to write to ${nearest}`;
  }
}
