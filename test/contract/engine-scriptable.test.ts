/** The engine that tests script is an engine like any other, as far as it draws at all. */
import path from 'node:path';
import { describeEngine } from './engine-conformance.js';

const main = path.join(import.meta.dirname, '../../dist/test/engines/scriptable/main.js');

describeEngine('scriptable', {
  command: [process.execPath, main],
  modelDir: '/no/folder/means/its/own/model',
  env: { SCRIPT_STEP: '5ms' },
  can: { draw: true, detectNaN: false, countTokens: true, pause: true, prepare: true, lora: undefined },
});
