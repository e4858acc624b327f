/** Where tests find the model and the vectors that torch and diffusers computed with it. */
import { existsSync } from 'node:fs';
import path from 'node:path';

const committed = path.join(import.meta.dirname, '../../libs/embedded-model');
const root = existsSync(path.join(committed, 'z-image-tiny/mesh.json')) ? committed : '/tmp/spike';

export const modelDir = path.join(root, 'z-image-tiny');
export const vectorsDir = path.join(root, 'vectors');
