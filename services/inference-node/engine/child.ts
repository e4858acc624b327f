/**
 * One engine process: started in a process group of its own, so that a Ctrl-C in a terminal reaches
 * the node alone and the node decides when its engine stops; its output is its log.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { kill } from 'node:process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { Clock } from '#core';

export interface ChildOptions {
  /** Program and arguments. */
  readonly command: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly onLine: (line: string, stream: 'stdout' | 'stderr') => void;
}

const MAX_LINE_CHARS = 8192;

export class EngineChild {
  readonly #child: ChildProcess;
  /** How it ended, as a phrase: "exit code 3", "signal SIGKILL", or why it never started. Never rejects. */
  readonly exited: Promise<string>;
  #running = true;

  constructor(options: ChildOptions) {
    const [program, ...args] = options.command;
    this.#child = spawn(program, args, { env: { ...options.env }, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    this.exited = new Promise((resolve) => {
      const ended = (how: string) => {
        this.#running = false;
        resolve(how);
      };
      this.#child.once('error', (error) => ended(`not started: ${error.message}`));
      this.#child.once('exit', (code, signal) => ended(signal === null ? `exit code ${code}` : `signal ${signal}`));
    });
    for (const name of ['stdout', 'stderr'] as const) readLines(this.#child[name], (line) => options.onLine(line, name));
  }

  /** 0 when it could not be started. */
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get running(): boolean {
    return this.#running;
  }

  /** The process and whatever it has started. */
  signal(name: 'SIGINT' | 'SIGKILL'): void {
    if (!this.#running || this.#child.pid === undefined) return;
    try {
      kill(-this.#child.pid, name);
    } catch {
      this.#child.kill(name); // the group is gone already, or not ours to signal
    }
  }

  /** SIGINT, and SIGKILL when it still runs after the grace. */
  async stop(clock: Clock, graceMs: number): Promise<void> {
    this.signal('SIGINT');
    const cancel = clock.schedule(graceMs, () => this.signal('SIGKILL'));
    await this.exited;
    cancel();
  }
}

function readLines(stream: Readable | null, onLine: (line: string) => void): void {
  if (!stream) return;
  createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY }).on('line', (line) => {
    if (line !== '') onLine(line.slice(0, MAX_LINE_CHARS));
  });
}
