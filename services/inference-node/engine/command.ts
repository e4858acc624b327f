/** Which program is the engine that DMESH_NODE_ENGINE names? */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { ConfigError } from '#runtime';

export type EngineCommand = readonly [string, ...string[]];

/** What `npm run setup:diffusers` writes when the environment is complete. */
const COMPLETE = '.requirements-sha256';

/** Throws ConfigError where an engine of ours is not set up. */
export function engineCommand(engine: string, at: { readonly nodePath: string; readonly packageRoot: string }): EngineCommand {
  if (engine === 'onnx') return [at.nodePath, path.join(at.packageRoot, 'dist', 'services', 'engine-onnx', 'main.js')];
  if (engine === 'diffusers') return diffusersCommand(at.packageRoot);
  const [program = '', ...args] = engine.split(' ').filter((word) => word !== '');
  return [program === 'node' ? at.nodePath : program, ...args];
}

function diffusersCommand(packageRoot: string): EngineCommand {
  const environment = path.join(packageRoot, '.cache', 'engine-diffusers');
  if (!existsSync(path.join(environment, COMPLETE))) {
    throw new ConfigError([
      `DMESH_NODE_ENGINE: diffusers needs its Python environment at ${environment}; npm run setup:diffusers makes it`,
    ]);
  }
  return [path.join(environment, 'bin', 'python'), path.join(packageRoot, 'services', 'engine-diffusers', 'main.py')];
}
