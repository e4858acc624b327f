import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, vi } from 'vitest';
import { diffusersCommand, diffusersEnv, sayIfAbsent } from '../support/diffusers-engine.js';
import { modelDir } from '../support/model-folder.js';
import { describeEngine } from './engine-conformance.js';

const manifest: { loras: { name: string }[] } = JSON.parse(readFileSync(path.join(modelDir, 'mesh.json'), 'utf8'));

// Importing torch takes each process five seconds of a whole core, and most of these tests start one or two.
vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });

describe.skipIf(sayIfAbsent('the conformance of engine-diffusers'))('with PyTorch', () => {
  describeEngine('engine-diffusers', {
    command: diffusersCommand,
    modelDir,
    env: diffusersEnv,
    slowRequest: { steps: 30 }, // at 256², about two seconds of a core
    can: { draw: true, detectNaN: true, countTokens: true, pause: true, prepare: true, lora: manifest.loras[0]?.name },
  });
});
