/**
 * A nats-server as a child process on this machine's loopback, for `dmesh up` and for tests. Port 0
 * lets the server choose a free one, so many can run at once. It keeps nothing unless a folder is given.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';

const START_TIMEOUT_MS = 10_000;
const STOP_GRACE_MS = 5000;
/**
 * Becomes the given command and ends it when stdin closes, which is what happens when the process
 * that started it is killed: no server is left behind.
 */
const UNTIL_STDIN_CLOSES = 'exec 3<&0 </dev/null; (cat; kill $$) <&3 3<&- >/dev/null 2>&1 & exec "$@" 3<&-';

export interface NatsServerOptions {
  /** The executable, from findNatsServer. */
  readonly path: string;
  /** Default 0: the server chooses. Give a port to come back where an earlier one was. */
  readonly port?: number;
  /** JetStream's store. Default: a temporary folder, removed when the server has stopped. */
  readonly dir?: string;
  /** Default false. */
  readonly jetstream?: boolean;
  /** Further command-line arguments, such as ['--user', 'a', '--pass', 'b']. */
  readonly args?: readonly string[];
  /** Where the paths of a configuration file begin. Default: here. */
  readonly cwd?: string;
  /** Every line the server logs. */
  readonly onLine?: (line: string) => void;
  readonly onExit?: (exit: NatsServerExit) => void;
}

export interface NatsServerExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** Whether stop() or kill() asked for it. */
  readonly asked: boolean;
}

export interface NatsServer {
  /** Such as nats://127.0.0.1:4222. */
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** Resolves, never rejects, when the process is gone. */
  readonly exited: Promise<NatsServerExit>;
  /** SIGTERM, then SIGKILL after 5 s. Resolves when the process is gone and its folder removed; safe to repeat. */
  stop(): Promise<void>;
  /** Sends one signal that ends the process (default SIGKILL) and resolves when it is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** SIGSTOP: connections stay open and nobody answers. */
  pause(): void;
  /** SIGCONT. */
  resume(): void;
}

/** Resolves when clients can connect; rejects with the server's last words when it does not come up within 10 s. */
export async function startNatsServer(options: NatsServerOptions): Promise<NatsServer> {
  const scratch = options.jetstream && !options.dir ? await mkdtemp(path.join(os.tmpdir(), 'dmesh-nats-')) : undefined;
  const storeDir = options.dir ?? scratch;
  const store = options.jetstream && storeDir ? ['--jetstream', '--store_dir', storeDir] : [];
  const port = options.port === undefined || options.port === 0 ? -1 : options.port;
  const args = [options.path, '--addr', '127.0.0.1', '--port', String(port), ...store, ...(options.args ?? [])];
  const child = spawn('/bin/sh', ['-c', UNTIL_STDIN_CLOSES, 'sh', ...args], {
    stdio: ['pipe', 'ignore', 'pipe'], // nats-server logs to stderr
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    detached: true, // Ctrl-C in a terminal goes to the mesh, which stops its NATS last
  });

  let asked = false;
  const exited = new Promise<NatsServerExit>((resolve) => {
    const leave = async (code: number | null, signal: NodeJS.Signals | null) => {
      if (scratch) await rm(scratch, { recursive: true, force: true });
      const exit = { code, signal, asked };
      options.onExit?.(exit);
      resolve(exit);
    };
    child.once('exit', leave);
    child.once('error', () => void (child.pid === undefined && leave(null, null))); // it never started
  });
  const end = async (signal: NodeJS.Signals) => {
    asked = true;
    child.kill('SIGCONT'); // a paused process does not see SIGTERM
    child.kill(signal);
    await exited;
  };

  try {
    const actualPort = await listening(child, options.onLine);
    return {
      url: `nats://127.0.0.1:${actualPort}`,
      port: actualPort,
      pid: child.pid ?? 0,
      exited,
      stop: () => {
        const hard = AbortSignal.timeout(STOP_GRACE_MS);
        hard.addEventListener('abort', () => child.exitCode === null && child.signalCode === null && child.kill('SIGKILL'), { once: true });
        return end('SIGTERM');
      },
      kill: (signal = 'SIGKILL') => end(signal),
      pause: () => void child.kill('SIGSTOP'),
      resume: () => void child.kill('SIGCONT'),
    };
  } catch (error) {
    await end('SIGKILL');
    throw error;
  }
}

/** Reads the log until the server says on which port it listens and that it is ready. */
function listening(child: ChildProcess, onLine: ((line: string) => void) | undefined): Promise<number> {
  return new Promise((resolve, reject) => {
    const tail: string[] = [];
    let port = 0;
    const fail = (why: string) => reject(new Error(`nats-server did not start: ${why}${tail.length > 0 ? `: ${tail.join(' | ')}` : ''}`));
    const limit = AbortSignal.timeout(START_TIMEOUT_MS);
    const onLimit = () => fail(`not ready within ${START_TIMEOUT_MS} ms`);
    limit.addEventListener('abort', onLimit, { once: true });
    child.once('error', (error) => fail(error.message));
    child.once('exit', (code, signal) => fail(`exited with ${signal ?? code}`));
    if (!child.stderr) return fail('no log to read');
    readline.createInterface({ input: child.stderr }).on('line', (line) => {
      onLine?.(line);
      if (port < 0) return; // running; only forwarded from here on
      tail.push(line);
      if (tail.length > 3) tail.shift();
      const match = /Listening for client connections on .*:(\d+)/.exec(line);
      if (match) port = Number(match[1]);
      if (port > 0 && line.includes('Server is ready')) {
        limit.removeEventListener('abort', onLimit);
        resolve(port);
        port = -1;
      }
    });
  });
}
