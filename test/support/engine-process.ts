/** An engine as a real process, started as a node starts it: by a command and its environment. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { engine } from '#contracts';
import { Channel } from '#grpc';
import { systemClock } from '#runtime';

const Service = engine.EngineServiceService;
const START_TIMEOUT_MS = 20_000;

export interface EngineProcess {
  readonly channel: Channel;
  readonly pid: number;
  readonly socketPath: string;
  /** How it ended; pending while it runs. */
  readonly exited: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
  /** JSON lines and whatever else it wrote. */
  output(): string;
  status(): Promise<engine.StatusResponse>;
  load(modelDir: string): Promise<engine.LoadResponse>;
  generate(request: engine.EngineGenerateRequest, signal?: AbortSignal): AsyncIterable<engine.EngineGenerateEvent>;
  /** Whether it is paused now. */
  pause(requestId: string): Promise<boolean>;
  /** Whether it goes on. */
  continue(requestId: string): Promise<boolean>;
  kill(signal: NodeJS.Signals): void;
  /** Ends it, however it is, and resolves when it is gone. */
  close(): Promise<void>;
}

export interface EngineStart {
  /** Program and arguments. */
  readonly command: readonly [string, ...string[]];
  readonly env?: Readonly<Record<string, string>>;
  /** Default: a fresh one in a folder of its own. */
  readonly socketPath?: string;
}

/** Resolves when the socket takes connections; rejects with the output of an engine that ends before that. */
export async function startEngine({ command, env, socketPath }: EngineStart): Promise<EngineProcess> {
  const dir = await mkdtemp(path.join(tmpdir(), 'dmesh-engine-'));
  const socket = socketPath ?? path.join(dir, 'engine.sock');
  const [program, ...args] = command;
  const child = spawn(program, args, {
    env: { ...process.env, DMESH_ENGINE_PARENT_PID: String(process.pid), ...env, DMESH_ENGINE_SOCKET: socket },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const chunks: string[] = [];
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (chunk: string) => chunks.push(chunk));
  const exited = exitOf(child);
  const channel = new Channel(`unix:${socket}`, { clock: systemClock });
  const output = () => chunks.join('');
  const close = async () => {
    channel.close();
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await exited;
    await rm(dir, { recursive: true, force: true });
  };
  const early = exited.then(({ code, signal }) => {
    throw new Error(`engine ended before it was ready (${code ?? signal}):\n${output()}`);
  });
  try {
    await Promise.race([channel.waitReady(START_TIMEOUT_MS), early]);
  } catch (reason) {
    await close();
    throw reason;
  }
  early.catch(() => {}); // an end after the start is for `exited` to tell
  return {
    channel,
    pid: child.pid ?? 0,
    socketPath: socket,
    exited,
    output,
    status: async () => (await channel.unary(Service.status, {})).response,
    load: async (modelDir) => (await channel.unary(Service.load, { modelDir })).response,
    generate: (request, signal) => channel.serverStream(Service.generate, request, signal ? { signal } : {}),
    pause: async (requestId) => (await channel.unary(Service.pause, { requestId })).response.paused,
    continue: async (requestId) => (await channel.unary(Service.continue, { requestId })).response.continued,
    kill: (signal) => void child.kill(signal),
    close,
  };
}

function exitOf(child: ChildProcess): EngineProcess['exited'] {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve({ code, signal }));
  });
}
