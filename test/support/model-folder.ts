/** Where tests and benches find the model and the vectors that torch and diffusers computed with it. */
import { existsSync } from 'node:fs';
import path from 'node:path';

const committed = path.join(repositoryRoot(import.meta.dirname), 'libs/embedded-model');
const root = existsSync(path.join(committed, 'z-image-tiny/mesh.json')) ? committed : '/tmp/spike';

export const modelDir = path.join(root, 'z-image-tiny');
export const vectorsDir = path.join(root, 'vectors');

/** The same from the sources and from dist. */
function repositoryRoot(from: string): string {
  return existsSync(path.join(from, 'package.json')) ? from : repositoryRoot(path.dirname(from));
}
