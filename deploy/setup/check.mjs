// `npm run check`: what CI asks of the sources besides the tests. All checks run, all faults are
// shown, and the exit code says whether there were any.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const root = path.resolve(import.meta.dirname, '../..');
const bin = (name) => path.join(root, 'node_modules/.bin', name);
const scratch = mkdtempSync(path.join(tmpdir(), 'dmesh-check-'));

try {
  const prepared = spawnSync(process.execPath, [path.join(root, 'deploy/setup/prepare.mjs'), '--dependencies'], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (prepared.status !== 0) throw new Error('the dependencies could not be installed');
  mkdirSync(path.join(root, '.cache'), { recursive: true });
  const earlier = earlierContract();
  const checks = [
    ['generated code is current', process.execPath, [path.join(root, 'deploy/setup/generate.mjs'), '--check']],
    ['contract: buf lint', bin('buf'), ['lint']],
    earlier.skip === undefined
      ? [`contract: nothing breaks since ${earlier.commit.slice(0, 9)}`, bin('buf'), ['breaking', '--against', earlier.archive]]
      : [`contract: nothing breaks (${earlier.skip})`],
    // Its own notes: the build's would say that these files have been written.
    [
      'types: tsc',
      process.execPath,
      [path.join(root, 'node_modules/typescript/bin/tsc'), '-p', '.', '--noEmit', '--tsBuildInfoFile', '.cache/check.tsbuildinfo'],
    ],
    ['format and lint: biome', bin('biome'), ['check', '--error-on-warnings', '--colors=off', '--max-diagnostics=200', '.']],
  ];
  const results = await Promise.all(checks.map(([name, command, args]) => (command ? run(name, command, args) : { name, skipped: true })));
  for (const { name, output, failed, skipped } of results) {
    if (failed) console.error(`\n${output}\n`);
    console.error(`${skipped ? 'SKIPPED' : failed ? 'FAILED ' : 'ok     '} ${name}`);
  }
  process.exitCode = results.some(({ failed }) => failed) ? 1 : 0;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

function run(name, command, args) {
  return new Promise((resolve) => {
    let output = '';
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
    child.on('error', (error) => resolve({ name, failed: true, output: `${command}: ${error.message}` }));
    child.on('close', (code) => resolve({ name, failed: code !== 0, output: output.trimEnd() }));
  });
}

// What to compare the contract with: the last commit, when proto/ has been edited since; otherwise the
// contract before the last commit that touched it. So a break shows once, where it is made.
function earlierContract() {
  const git = (...args) => spawnSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  if (!existsSync(path.join(root, '.git'))) return { skip: 'no git history here' };
  const shallow = git('rev-parse', '--is-shallow-repository');
  if (shallow.error || shallow.status !== 0) return { skip: 'git does not answer' };
  if (shallow.stdout.trim() === 'true') return { skip: 'the clone is shallow' };
  const touching = git('log', '--format=%H', '-n', '2', '--', 'proto').stdout.split('\n').filter(Boolean);
  const edited = git('status', '--porcelain', '--', 'proto').stdout !== '';
  const commit = edited ? touching[0] : touching[1];
  if (commit === undefined) return { skip: 'there is no earlier contract' };
  const archive = path.join(scratch, 'earlier.tar');
  const packed = git('archive', '--format=tar', '-o', archive, commit, 'proto', 'buf.yaml');
  return packed.status === 0 ? { commit, archive } : { skip: 'the earlier contract cannot be read' };
}
