/** The engine on PyTorch as tests start it: on the CPU, on one thread. Its environment is there or the tests of it say SKIPPED. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { packageRoot } from '#runtime';

const environment = path.join(packageRoot, '.cache/engine-diffusers');
const folder = path.join(packageRoot, 'services/engine-diffusers');

export const diffusersPython = path.join(environment, 'bin/python');
export const diffusersFolder = folder;
export const diffusersCommand: readonly [string, ...string[]] = [diffusersPython, path.join(folder, 'main.py')];
export const diffusersEnv = { CUDA_VISIBLE_DEVICES: '', DMESH_ENGINE_THREADS: '1' };

/** Why it cannot be started, or undefined. */
export function diffusersAbsent(): string | undefined {
  const stamp = path.join(environment, '.requirements-sha256');
  if (!existsSync(diffusersPython) || !existsSync(stamp)) return 'its environment is not set up: npm run setup:diffusers';
  const wanted = createHash('sha256')
    .update(readFileSync(path.join(folder, 'requirements.lock')))
    .digest('hex');
  return readFileSync(stamp, 'utf8') === wanted ? undefined : 'its environment is of another requirements.lock: npm run setup:diffusers';
}

/** Told once a test file, where nobody can overlook it. */
export function sayIfAbsent(what: string): boolean {
  const why = diffusersAbsent();
  if (why !== undefined) process.stderr.write(`\nSKIPPED: ${what}: ${why}\n\n`);
  return why !== undefined;
}
