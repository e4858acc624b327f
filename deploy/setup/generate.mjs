// Regenerates libs/contracts/generated from proto/, and the descriptors that the Python engine reads. With
// --check it fails when the result differs from what is committed.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const root = path.resolve(import.meta.dirname, '../..');
const committed = path.join(root, 'libs/contracts/generated');
const descriptors = path.join(root, 'services/engine-diffusers/engine_diffusers/descriptors.binpb');
const scratch = mkdtempSync(path.join(tmpdir(), 'dmesh-gen-'));

try {
  const buf = path.join(root, 'node_modules/.bin/buf');
  const run = (...args) => execFileSync(buf, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  run('generate', '--output', scratch);
  const set = path.join(scratch, 'descriptors.binpb');
  run('build', '--as-file-descriptor-set', '-o', set);
  const fresh = path.join(scratch, 'libs/contracts/generated');
  const base64 = readFileSync(set).toString('base64');
  const lines = base64.match(/.{1,100}/g).map((line) => `  '${line}'`);
  const header = '// The FileDescriptorSet of proto/, as buf built it. Written by `npm run gen`.\n';
  writeFileSync(path.join(fresh, 'descriptors.ts'), `${header}export const descriptorSet = [\n${lines.join(',\n')},\n].join('');\n`);

  if (process.argv.includes('--check')) {
    const stale = difference(fresh, committed);
    if (!existsSync(descriptors) || !readFileSync(descriptors).equals(readFileSync(set))) stale.push(path.basename(descriptors));
    if (stale.length > 0) {
      console.error(`Generated code is stale: ${stale.join(', ')}. Run "npm run gen" and commit the result.`);
      process.exitCode = 1;
    }
  } else {
    rmSync(committed, { recursive: true, force: true });
    cpSync(fresh, committed, { recursive: true });
    cpSync(set, descriptors);
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

function difference(a, b) {
  const list = (dir) =>
    readdirSync(dir, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => path.relative(dir, path.join(entry.parentPath ?? entry.path, entry.name)));
  const names = new Set([...list(a), ...list(b)]);
  const read = (dir, name) => {
    try {
      return readFileSync(path.join(dir, name), 'utf8');
    } catch {
      return undefined; // a file that is missing on one side differs
    }
  };
  return [...names].filter((name) => read(a, name) !== read(b, name));
}
