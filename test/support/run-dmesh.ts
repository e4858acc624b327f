/** A command of the command line, in this process, with what it would have written on a terminal. */
import type { Context, ExitCode } from '../../services/cli/command.js';
import { dispatch } from '../../services/cli/dispatch.js';
import { noPaint } from '../../services/cli/terminal.js';

export interface Ran {
  readonly code: ExitCode;
  readonly out: string;
  readonly err: string;
}

export interface RunOptions {
  readonly env?: Context['env'];
  /** Ctrl-C. */
  readonly signal?: AbortSignal;
  readonly terminal?: Partial<Pick<Context['terminal'], 'columnCount' | 'interactive' | 'screen'>>;
  /** All that it has written so far. */
  readonly onOut?: (out: string) => void;
}

export async function runDmesh(args: readonly string[], { env = {}, onOut, signal, terminal }: RunOptions = {}): Promise<Ran> {
  let [out, err] = ['', ''];
  const never = new AbortController().signal;
  const code = await dispatch(args, {
    env,
    signal: signal ?? never,
    hurry: never,
    terminal: {
      out: (text) => {
        out += text;
        onOut?.(out);
      },
      err: (text) => {
        err += text;
      },
      interactive: false,
      columnCount: 80,
      paint: noPaint,
      ...terminal,
    },
  });
  return { code, out, err };
}
