/**
 * One process of the mesh, started and owned by us: its lines, its addresses once it says that it is
 * ready, and its end.
 *
 * A child leads a process group of its own. So Ctrl-C in a terminal reaches the parent alone, which
 * then drains the mesh in order, and what a child leaves behind (an engine) can be killed with it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { printable } from '#core';
import { systemClock, thisProcess } from '#runtime';

export interface ChildOptions {
  /** Such as "router-1"; names the process in lines and errors. */
  readonly id: string;
  /** Program and arguments. */
  readonly command: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly onLine?: ((line: Line) => void) | undefined;
}

/** A line a child wrote. */
export interface Line {
  readonly process: string;
  readonly text: string;
  /** The line's fields when it is a JSON object. */
  readonly fields?: Readonly<Record<string, unknown>>;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Where a ready service listens, host:port each. */
export interface Addresses {
  readonly grpc: string;
  readonly http: string;
}

const KEPT_LINE_COUNT = 5000;
const LAST_LINES_MS = 1000;

export class Child {
  readonly id: string;
  /** What it wrote, oldest first; the last 5000 lines. */
  readonly lines: string[] = [];
  /** Resolves, never rejects, when the process is gone. */
  readonly exited: Promise<Exit>;

  readonly #process: ChildProcess;
  readonly #watchers = new Set<(line: Line) => void>();
  #exit: Exit | undefined;
  #addresses: Addresses | undefined;

  constructor(options: ChildOptions) {
    this.id = options.id;
    if (options.onLine) this.#watchers.add(options.onLine);
    const [program, ...args] = options.command;
    this.#process = spawn(program, args, {
      env: { ...options.env, DMESH_PARENT_PID: String(thisProcess.pid) },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      if (stream) createInterface({ input: stream }).on('line', (text) => this.#take(text));
    }
    this.exited = new Promise((resolve) => {
      this.#process.once('exit', (code, signal) => {
        this.#exit = { code, signal };
        this.#killGroup(); // an engine it left behind
        // Its last lines come after its end, unless something that outlived it holds the pipes open.
        const cancel = systemClock.schedule(LAST_LINES_MS, () => resolve({ code, signal }));
        this.#process.once('close', () => {
          cancel();
          resolve({ code, signal });
        });
      });
      this.#process.once('error', (error) => {
        if (this.#process.pid !== undefined) return; // a signal that came too late
        this.#take(error.message);
        this.#exit = { code: null, signal: null };
        resolve(this.#exit);
      });
    });
  }

  /** 0 when it could not be started. */
  get pid(): number {
    return this.#process.pid ?? 0;
  }

  get running(): boolean {
    return this.#exit === undefined;
  }

  /** host:port; empty until ready. */
  get grpc(): string {
    return this.#addresses?.grpc ?? '';
  }

  /** host:port of /metrics, /healthz and /readyz; empty until ready. */
  get http(): string {
    return this.#addresses?.http ?? '';
  }

  /** The latest warning or error among its lines. */
  get lastComplaint(): string | undefined {
    const complaint = this.lines
      .map((text) => lineOf(this.id, text))
      .findLast(({ fields }) => fields?.level === 'error' || fields?.level === 'warn');
    return complaint && briefly(complaint);
  }

  /** Resolves with the addresses of its `ready` line; rejects, quoting its last lines, when it ends or `timeoutMs` pass before. */
  async waitReady(timeoutMs: number): Promise<Addresses> {
    // A node also forwards its engine's lines, whose address is a unix socket.
    const isReady = (line: Line) => line.fields?.msg === 'ready' && !String(line.fields.grpc).startsWith('unix:');
    const { fields } = await this.waitForLine(isReady, { timeoutMs, what: 'to be ready' });
    this.#addresses = { grpc: String(fields?.grpc ?? ''), http: String(fields?.http ?? '') };
    return this.#addresses;
  }

  /** The first line, past or future, that `matches`. `what` completes "expected X to …" in the error. */
  async waitForLine(matches: (line: Line) => boolean, options: { timeoutMs: number; what: string }): Promise<Line> {
    const past = this.lines.map((text) => lineOf(this.id, text)).find(matches);
    if (past) return past;
    const over = new AbortController();
    const found = new Promise<Line>((resolve) => {
      const watcher = (line: Line) => {
        if (matches(line)) resolve(line);
      };
      this.#watchers.add(watcher);
      over.signal.addEventListener('abort', () => this.#watchers.delete(watcher));
    });
    const late = systemClock.sleep(options.timeoutMs, over.signal).then(() => {
      throw this.#failure(`expected ${this.id} ${options.what} within ${options.timeoutMs} ms`);
    });
    const gone = this.exited.then((exit) => {
      throw this.#failure(`expected ${this.id} ${options.what}, it ended with ${describeExit(exit)}`);
    });
    gone.catch(() => {}); // it may end long after the line was found
    try {
      return await Promise.race([found, late, gone]);
    } finally {
      over.abort();
    }
  }

  /** False when it is gone already. */
  kill(signal: NodeJS.Signals): boolean {
    return this.running && this.#process.kill(signal);
  }

  /** SIGTERM, then SIGKILL after `graceMs`. A process that was stopped (SIGSTOP) is woken to hear it. */
  async stop(graceMs: number): Promise<Exit> {
    if (this.kill('SIGTERM')) this.kill('SIGCONT');
    const over = new AbortController();
    const cut = systemClock.sleep(graceMs, over.signal).then(
      () => this.#killGroup(),
      () => {},
    );
    await Promise.race([this.exited, cut]);
    over.abort();
    return this.exited;
  }

  #take(text: string): void {
    this.lines.push(text);
    if (this.lines.length > KEPT_LINE_COUNT) this.lines.shift();
    const line = lineOf(this.id, text);
    for (const watcher of this.#watchers) watcher(line);
  }

  #killGroup(): void {
    if (this.pid === 0) return;
    try {
      process.kill(-this.pid, 'SIGKILL');
    } catch {
      // ESRCH: nothing of the group is left, which is what we want
    }
  }

  #failure(sentence: string): Error {
    const last = this.lines.slice(-8).map((text) => `  ${briefly(lineOf(this.id, text))}`);
    return new Error([`${sentence}; its last lines:`, ...(last.length > 0 ? last : ['  (none)'])].join('\n'));
  }
}

function lineOf(process: string, text: string): Line {
  if (!text.startsWith('{')) return { process, text };
  try {
    return { process, text, fields: JSON.parse(text) };
  } catch {
    return { process, text };
  }
}

/** A log line without its figures: message and cause. */
function briefly({ text, fields }: Line): string {
  if (typeof fields?.msg !== 'string') return printable(text);
  const error = fields.error as { message?: unknown } | undefined;
  const cause = fields.why ?? fields.reason ?? error?.message;
  return printable(cause === undefined ? fields.msg : `${fields.msg}: ${cause}`);
}

function describeExit(exit: Exit): string {
  return exit.signal ? `signal ${exit.signal}` : `exit code ${exit.code ?? '(none: it could not be started)'}`;
}
