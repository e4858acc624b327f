/** What every command of dmesh is given and gives back. */
import type { Env } from '#runtime';
import type { Terminal } from './terminal.js';

export interface Context {
  readonly env: Env;
  readonly terminal: Terminal;
  /** Aborts on the first Ctrl-C (or SIGTERM, SIGHUP). */
  readonly signal: AbortSignal;
  /** Aborts on the second: no more patience. */
  readonly hurry: AbortSignal;
}

export interface Command {
  readonly name: string;
  readonly summary: string;
  readonly usage: string;
  /** A shorter one, where what was typed after the name says of what. */
  readonly usageOf?: (args: readonly string[]) => string | undefined;
  /** Throws UsageError for what was typed wrong, StatusError for what the mesh refused. */
  readonly run: (args: readonly string[], context: Context) => Promise<ExitCode>;
}

export const ExitCode = {
  OK: 0,
  FAILED: 1,
  /** The mesh understood and said no: a bad request, an unknown name. */
  REFUSED: 2,
  /** Nobody there, too busy, or too late; the same command may work later. */
  UNAVAILABLE: 3,
  /** The command line is wrong (EX_USAGE). */
  USAGE: 64,
  INTERRUPTED: 130,
} as const;
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

export const DEFAULT_ROUTER = '127.0.0.1:50051';
