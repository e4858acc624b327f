/**
 * The frame of every main.ts: config → build → start → wait for a signal → drain → exit code. A signal
 * that comes while starting is obeyed at once.
 * Exit codes: 0 stopped on request, 1 failed, 64 bad configuration (EX_USAGE), the files it names included.
 */
import { ConfigError, describeSettings, type Env, EnvReader } from './env.js';
import type { Lifecycle } from './lifecycle.js';
import { watchParent } from './parent.js';

export interface Program<Config> {
  readonly name: string;
  readonly summary: string;
  /** Starts every setting's name, such as DMESH_ROUTER_. */
  readonly envPrefix: string;
  readonly parse: (read: EnvReader) => Config;
  /** Builds everything without starting it. May throw ConfigError for what only a look at files tells. */
  readonly build: (config: Config) => Promise<Lifecycle>;
  /** Says that it runs; addresses are known now. */
  readonly onReady?: () => void;
  readonly onFailed: (message: string, error: unknown) => void;
}

export type StopRequest = 'SIGTERM' | 'SIGINT' | 'parent gone';

/** The rest of a mesh whose launcher was killed goes as well: what is waited for mostly cannot come any more. */
const ORPHAN_GRACE_MS = 5000;

export interface Host {
  readonly argv: readonly string[];
  readonly env: Env;
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
  /** Resolves on the first SIGTERM or SIGINT, or when the process named by DMESH_PARENT_PID is gone. */
  readonly stopRequested: Promise<StopRequest>;
  readonly exit: (code: number) => void;
}

export async function runProgram<Config>(program: Program<Config>, host: Host): Promise<void> {
  const read = new EnvReader(host.env, program.envPrefix);
  if (host.argv.includes('--help') || host.argv.includes('-h')) {
    const describe = new EnvReader({}, program.envPrefix);
    program.parse(describe);
    host.stdout(`${program.name}: ${program.summary}\n\nSettings (environment):\n${describeSettings(describe.settings)}\n`);
    return host.exit(0);
  }
  let lifecycle: Lifecycle;
  try {
    lifecycle = await program.build(program.parse(read));
  } catch (error) {
    return fail(program, error, host);
  }
  try {
    const starting = lifecycle.start();
    const stopping = host.stopRequested.then(() => 'stop' as const);
    if ((await Promise.race([starting, stopping])) === 'stop')
      starting.catch(() => {}); // of no interest any more
    else program.onReady?.();
    const orphaned = (await host.stopRequested) === 'parent gone';
    await lifecycle.stop(orphaned ? { maxGraceMs: ORPHAN_GRACE_MS } : {});
    host.exit(0);
  } catch (error) {
    fail(program, error, host);
  }
}

/** A ConfigError may come late: files that settings name are read when their part starts. */
function fail<Config>({ name, onFailed }: Program<Config>, error: unknown, host: Host): void {
  if (!(error instanceof ConfigError)) {
    onFailed(`${name} failed`, error);
    return host.exit(1);
  }
  host.stderr(`${name}: bad configuration\n${error.faults.map((fault) => `  ${fault}`).join('\n')}\n`);
  host.exit(64);
}

/** The real process. A second signal does not hurry the drain; the grace period bounds it. */
export function processHost(): Host {
  return {
    argv: process.argv.slice(2),
    env: process.env,
    stdout: (text) => void process.stdout.write(text),
    stderr: (text) => void process.stderr.write(text),
    stopRequested: new Promise((resolve) => {
      for (const name of ['SIGTERM', 'SIGINT'] as const) process.on(name, () => resolve(name));
      watchParent(Number(process.env.DMESH_PARENT_PID), () => resolve('parent gone'));
    }),
    exit: (code) => process.exit(code),
  };
}
