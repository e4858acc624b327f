/** `npm run bench`: every bench, each in a process of its own, one after the other; `--json FILE` holds all their figures by name. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { thisProcess } from '#runtime';
import { finish } from './support/report.js';

const BENCHES = ['hop', 'scale', 'scheduling', 'overload', 'users', 'membership', 'many-nodes', 'jobs', 'engine'] as const;

const dir = await mkdtemp(path.join(tmpdir(), 'dmesh-bench-'));
const figures: Record<string, unknown> = {};
const failed: string[] = [];
try {
  for (const name of BENCHES) {
    const file = path.join(dir, `${name}.json`);
    console.log(`\n== ${name}`);
    const child = spawn(thisProcess.nodePath, [path.join(import.meta.dirname, `${name}.js`), '--json', file], { stdio: 'inherit' });
    const [code] = await once(child, 'exit');
    if (code !== 0) failed.push(name);
    figures[name] = existsSync(file) ? JSON.parse(await readFile(file, 'utf8')) : null;
  }
} finally {
  await rm(dir, { recursive: true, force: true });
}
finish(figures);
if (failed.length > 0) {
  console.log(`  failed: ${failed.join(', ')}`);
  process.exitCode = 1;
}
