/**
 * Reads what a model folder says about itself: mesh.json, checked field by field, and whether the
 * files that an engine needs are there. Weights are not read here.
 *
 * Every fault is FAILED_PRECONDITION/MODEL_UNUSABLE with a sentence that names the file.
 */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { access, readFile } from 'node:fs/promises';
import path from 'node:path';
import { Code, Reason, StatusError } from '#core';
import { parseManifest } from './manifest.js';
import type { ModelInfo } from './model-info.js';

export interface ModelPackage {
  /** Absolute. */
  readonly dir: string;
  readonly info: ModelInfo;
  /** Absolute path of each adapter's safetensors file, by name. */
  readonly loraFiles: ReadonlyMap<string, string>;
  /** SHA-256 in hex of the files that mesh.json vouches for, by path relative to `dir`. */
  readonly digests: ReadonlyMap<string, string>;
  /** SHA-256 in hex of mesh.json: as it holds the digests, it stands for the whole folder. */
  readonly digest: string;
}

const MANIFEST = 'mesh.json';

/** What every engine needs beside mesh.json. */
const NEEDED_FILES = ['model_index.json'] as const;

/** What a model of this family has besides. Parts of other families have other names, which their engine knows. */
const Z_IMAGE = 'z-image';
const Z_IMAGE_FILES = [
  'scheduler/scheduler_config.json',
  'tokenizer/tokenizer.json',
  'tokenizer/tokenizer_config.json',
  'text_encoder/config.json',
  'transformer/config.json',
  'vae/config.json',
] as const;

/** `alsoNeeded`: paths relative to the folder that this engine needs on top, such as its ONNX graphs. */
export async function readModelPackage(dir: string, alsoNeeded: readonly string[] = []): Promise<ModelPackage> {
  const folder = path.resolve(dir);
  const bytes = await readFile(path.join(folder, MANIFEST)).catch((cause) => {
    throw modelUnusable(`expected a model folder with a ${MANIFEST} at ${folder}, found none that can be read`, cause);
  });
  const parsed = parseManifest(bytes.toString('utf8'));
  if (!parsed.ok) throw modelUnusable(`${MANIFEST} in ${folder}: ${parsed.faults.join('; ')}`);
  const { info, loraFiles, digests } = parsed.manifest;
  const needed = new Set([...NEEDED_FILES, ...(info.family === Z_IMAGE ? Z_IMAGE_FILES : []), ...alsoNeeded, ...loraFiles.values()]);
  const missing = await missingFiles(folder, [...needed]);
  if (missing.length > 0) throw modelUnusable(`model folder ${folder} lacks ${missing.join(', ')}`);
  return {
    dir: folder,
    info,
    loraFiles: new Map([...loraFiles].map(([name, file]) => [name, path.join(folder, file)])),
    digests,
    digest: createHash('sha256').update(bytes).digest('hex'),
  };
}

export function modelUnusable(message: string, cause?: unknown): StatusError {
  return new StatusError({ code: Code.FAILED_PRECONDITION, reason: Reason.MODEL_UNUSABLE, message, cause });
}

async function missingFiles(folder: string, files: readonly string[]): Promise<string[]> {
  const found = await Promise.all(
    files.map((file) =>
      access(path.join(folder, file), constants.R_OK).then(
        () => true,
        () => false,
      ),
    ),
  );
  return files.filter((_, i) => !found[i]);
}
