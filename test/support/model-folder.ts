/** Where tests and benches find the model and the vectors that torch and diffusers computed with it, and more folders like it. */
import { cp, mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { ModelInfo } from '#model-package';
import { packageRoot } from '#runtime';
import { SCRIPTED_MODEL } from '../engines/scriptable/index.js';

export const modelDir = path.join(packageRoot, 'libs/embedded-model/z-image-tiny');
export const vectorsDir = path.join(packageRoot, 'libs/embedded-model/vectors');

/** What a node wants to see in a folder, whatever engine it has. */
const NEEDED_FILES = [
  'model_index.json',
  'scheduler/scheduler_config.json',
  'tokenizer/tokenizer.json',
  'tokenizer/tokenizer_config.json',
  'text_encoder/config.json',
  'transformer/config.json',
  'vae/config.json',
];

/** A folder with the same files that says to be another model; of no folder at all, one of the scriptable engine. */
export async function copyOfModel(dir: string, changes: Partial<Pick<ModelInfo, 'name' | 'revision'>>): Promise<string> {
  const copy = await mkdtemp(path.join(tmpdir(), 'dmesh-model-'));
  const original = await readFile(path.join(dir, 'mesh.json'), 'utf8').catch(() => undefined);
  if (original === undefined) await scriptedFolder(copy);
  else await cp(dir, copy, { recursive: true });
  const manifest: unknown = original === undefined ? { ...SCRIPTED_MODEL, loras: [] } : JSON.parse(original);
  await writeFile(path.join(copy, 'mesh.json'), JSON.stringify({ ...(manifest as object), ...changes }));
  return copy;
}

async function scriptedFolder(folder: string): Promise<void> {
  for (const file of NEEDED_FILES) {
    await mkdir(path.join(folder, path.dirname(file)), { recursive: true });
    await writeFile(path.join(folder, file), '{}');
  }
}
