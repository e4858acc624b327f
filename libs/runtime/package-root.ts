/** Where this package lies, seen from the sources as well as from dist/. */
import { existsSync } from 'node:fs';
import path from 'node:path';

export const packageRoot: string = findUpwards(import.meta.dirname, 'package.json');

function findUpwards(from: string, name: string): string {
  const parent = path.dirname(from);
  return existsSync(path.join(from, name)) || parent === from ? from : findUpwards(parent, name);
}
