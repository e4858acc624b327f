// `npm run setup:diffusers`: the Python environment of services/engine-diffusers, in .cache/engine-diffusers. Exactly what
// requirements.lock names, with uv where there is one, else with pip; from PyPI, or the index that UV_INDEX_URL,
// UV_DEFAULT_INDEX or PIP_INDEX_URL names. Does nothing when it is there already. Progress goes to stderr.
//
//   --if-possible   for tests: when it cannot be had, say so and exit with 0
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const LEAST_PYTHON = [3, 11];
const root = path.resolve(import.meta.dirname, '../..');
const lock = path.join(root, 'services/engine-diffusers/requirements.lock');
const environment = path.join(root, '.cache/engine-diffusers');
const python = path.join(environment, 'bin/python');
const stamp = path.join(environment, '.requirements-sha256');
const wanted = createHash('sha256').update(readFileSync(lock)).digest('hex');
const say = (text) => process.stderr.write(`${text}\n`);

class Refusal extends Error {}

try {
  if (isSetUp()) say('The environment of engine-diffusers is set up.');
  else setUp();
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  const ifPossible = process.argv.includes('--if-possible');
  say(`${ifPossible ? 'SKIPPED: engine-diffusers is not set up: ' : ''}${error.message}`);
  process.exitCode = ifPossible ? 0 : 1;
}

function isSetUp() {
  return existsSync(python) && existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted;
}

function setUp() {
  const uv = runs('uv', ['--version']);
  say(
    `Setting up engine-diffusers in .cache/engine-diffusers with ${uv ? 'uv' : 'pip'}: torch, diffusers and transformers with CUDA's ` +
      'libraries, which also run without a GPU. About 3 GB to download unless they are cached, 5.5 GB on disk …',
  );
  rmSync(environment, { recursive: true, force: true });
  mkdirSync(path.dirname(environment), { recursive: true });
  const { PIP_INDEX_URL } = process.env;
  const env = { ...process.env, ...(PIP_INDEX_URL && !process.env.UV_INDEX_URL ? { UV_INDEX_URL: PIP_INDEX_URL } : {}) };
  const startedAt = Date.now();
  if (uv) {
    must('uv', ['venv', '--quiet', '--python', `>=${LEAST_PYTHON.join('.')}`, environment], env);
    must('uv', ['pip', 'install', '--quiet', '--python', python, '--require-hashes', '-r', lock], env);
  } else {
    must(findPython(), ['-m', 'venv', environment], env);
    must(python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--require-hashes', '-r', lock], env);
  }
  // Compiled once here, not by every engine that starts first.
  must(python, ['-m', 'compileall', '-q', '-j', '0', path.join(environment, 'lib')], env, { mayFail: true });
  must(python, ['-c', 'import torch, diffusers, transformers, grpc'], env);
  writeFileSync(stamp, wanted);
  say(`Set up after ${Math.round((Date.now() - startedAt) / 1000)} s. Try: npx dmesh up --engine diffusers`);
}

function findPython() {
  const isNewEnough = `import sys; sys.exit(sys.version_info < (${LEAST_PYTHON.join(', ')}))`;
  const found = ['python3', 'python', 'python3.13', 'python3.12', 'python3.11'].find((name) => runs(name, ['-c', isNewEnough]));
  if (found) return found;
  throw new Refusal(`it needs Python ${LEAST_PYTHON.join('.')} or newer, or uv (https://docs.astral.sh/uv), and finds neither.`);
}

function runs(command, args) {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}

function must(command, args, env, { mayFail = false } = {}) {
  const { status, error, stdout, stderr } = spawnSync(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' });
  if (status === 0 || mayFail) return;
  throw new Refusal(`${command} ${args.slice(0, 3).join(' ')} failed: ${error?.message ?? `${stdout}${stderr}`.trim().slice(-2000)}`);
}
