import { readFileSync } from 'node:fs';
import path from 'node:path';
import { modelDir } from '../support/model-folder.js';
import { describeEngine } from './engine-conformance.js';

const main = path.join(import.meta.dirname, '../../dist/services/engine-onnx/main.js');
const manifest: { loras: { name: string }[] } = JSON.parse(readFileSync(path.join(modelDir, 'mesh.json'), 'utf8'));

describeEngine('engine-onnx', {
  command: [process.execPath, main],
  modelDir,
  can: { draw: true, detectNaN: true, countTokens: true, pause: true, prepare: false, lora: manifest.loras[0]?.name },
});
