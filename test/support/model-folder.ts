/** Where tests and benches find the model and the vectors that torch and diffusers computed with it. */
import path from 'node:path';
import { packageRoot } from '#runtime';

export const modelDir = path.join(packageRoot, 'libs/embedded-model/z-image-tiny');
export const vectorsDir = path.join(packageRoot, 'libs/embedded-model/vectors');
