// Makes the tree ready to run: the right Node, dependencies as package-lock.json has them, dist/ as
// the sources say. Every npm script that runs something begins here. When nothing has changed it
// only compares lists and takes a fraction of a second. Plain Node without dependencies, since it
// runs before there are any. Progress goes to stderr, so that stdout stays the command's own.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const LEAST_NODE = [20, 19];
const SOURCE_FOLDERS = ['libs', 'services', 'test'];

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const at = (...parts) => path.join(root, ...parts);
const say = (text) => process.stderr.write(`${text}\n`);

class Refusal extends Error {}

try {
  checkNode();
  if (!isInstalled()) locked(() => isInstalled() || install());
  // Checks need the tools but no build; it would stop at the first type error.
  const needsBuild = !process.argv.includes('--dependencies');
  if (needsBuild && !isBuilt()) locked(() => isBuilt() || build());
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  say(error.message);
  process.exitCode = 1;
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > LEAST_NODE[0] || (major === LEAST_NODE[0] && minor >= LEAST_NODE[1])) return;
  throw new Refusal(
    `Diffusion Mesh needs Node ${LEAST_NODE.join('.')} or newer; this is ${process.versions.node}. See https://nodejs.org.`,
  );
}

// npm writes what it has installed into node_modules/.package-lock.json, last of all; so its absence
// means "never or half installed", and comparing versions finds every difference.
function isInstalled() {
  const installed = readJson(at('node_modules/.package-lock.json'))?.packages;
  if (!installed) return false;
  const { '': _root, ...wanted } = readJson(at('package-lock.json')).packages;
  const same = (name) => installed[name]?.version === wanted[name]?.version;
  // Optional ones are for other machines, mostly; npm knows which. None may have another version.
  const complete = Object.entries(wanted).every(([name, entry]) => same(name) || (entry.optional && !installed[name]));
  return complete && Object.keys(installed).every((name) => wanted[name]);
}

function install() {
  say('Installing dependencies (npm ci), about half a minute …');
  // Under npm, npm_execpath is the npm that runs us; it needs no PATH.
  const npm = process.env.npm_execpath?.endsWith('.js') ? [process.execPath, process.env.npm_execpath] : ['npm'];
  // --include=dev: the compiler is one of them, also where NODE_ENV says production.
  const result = run([...npm, 'ci', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error'], {
    ...process.env,
    // For an npm told to run install scripts all the same (npm_config_ignore_scripts=false): see .npmrc.
    ONNXRUNTIME_NODE_INSTALL: 'skip',
  });
  if (result.failed) {
    throw new Refusal(`${result.output}\nnpm ci failed (above). It needs the npm registry; run "npm ci" to try by hand.`);
  }
}

function isBuilt() {
  return readText(at('dist/.prepared')) === fingerprint() && sources().every((source) => existsSync(outputOf(source)));
}

function build() {
  say('Building (tsc) …');
  const wanted = sources();
  const before = fingerprint();
  const outputs = new Set(wanted.map(outputOf));
  for (const file of filesUnder(at('dist'), (name) => /\.js(\.map)?$/.test(name))) {
    if (!outputs.has(file.replace(/\.map$/, ''))) rmSync(file); // its source is gone; importing it must fail here too
  }
  // tsc trusts its notes about what it has written; if someone has deleted outputs, they are wrong.
  const state = at('dist/.tsbuildinfo');
  if (!wanted.every((source) => existsSync(outputOf(source)))) rmSync(state, { force: true });
  const result = run([process.execPath, at('node_modules/typescript/bin/tsc'), '-p', at('tsconfig.json')], process.env);
  if (result.failed) throw new Refusal(`${result.output}\nThe build failed: type errors above.`);
  chmodSync(at('dist/services/cli/main.js'), 0o755); // npx runs it as a program, and tsc has written it anew
  // What changed while tsc ran is built next time.
  writeFileSync(at('dist/.prepared'), before);
}

/** Changes when a source is edited, added, renamed or removed, or the compiler or its settings change. */
function fingerprint() {
  const hash = createHash('sha256');
  for (const file of [...sources(), at('tsconfig.json'), at('package-lock.json'), at('package.json')]) {
    const { mtimeMs, size } = statSync(file);
    hash.update(`${path.relative(root, file)} ${mtimeMs} ${size}\n`);
  }
  return hash.digest('hex');
}

function sources() {
  return SOURCE_FOLDERS.flatMap((folder) => filesUnder(at(folder), (name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))).sort();
}

function outputOf(source) {
  return at('dist', path.relative(root, source).replace(/\.ts$/, '.js'));
}

function filesUnder(folder, keep) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) return entry.name.startsWith('.') ? [] : filesUnder(file, keep);
    return keep(entry.name) ? [file] : [];
  });
}

// Two commands started at once must not install or build over each other: the second waits, then finds
// the work done. A lock whose owner is gone is taken over.
function locked(work) {
  const lock = at('.cache/prepare.lock');
  mkdirSync(at('.cache'), { recursive: true });
  let told = false;
  while (!takeLock(lock)) {
    if (!told) say('Waiting for another run that prepares this folder …');
    told = true;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
  }
  try {
    work();
  } finally {
    rmSync(lock, { force: true });
  }
}

function takeLock(lock) {
  try {
    writeFileSync(lock, String(process.pid), { flag: 'wx' });
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
  }
  const owner = Number(readText(lock));
  // An empty file is a lock being written, or left by a machine that went down then; age tells.
  const abandoned = owner > 0 ? !isAlive(owner) : ageMs(lock) > 5_000;
  if (abandoned) rmSync(lock, { force: true });
  return false;
}

function ageMs(file) {
  return Date.now() - (statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
}

function isAlive(pid) {
  try {
    process.kill(pid, 0); // sends nothing, only asks
    return true;
  } catch (error) {
    return error.code === 'EPERM'; // alive, another user's
  }
}

function run([command, ...args], env) {
  const result = spawnSync(command, args, {
    cwd: root,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  });
  if (result.error) return { failed: true, output: `${command}: ${result.error.message}` };
  return { failed: result.status !== 0, output: `${result.stdout}${result.stderr}`.trimEnd() };
}

function readText(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined; // absent is an answer
  }
}

function readJson(file) {
  const text = readText(file);
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined; // cut short by a crash: as good as absent
  }
}
