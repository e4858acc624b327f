#!/usr/bin/env node
/** dmesh: the mesh from a terminal. */
import type { Context } from './command.js';
import { dispatch } from './dispatch.js';
import { ansiPaint, noPaint } from './terminal.js';

const stop = new AbortController();
const hurry = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => (stop.signal.aborted ? hurry : stop).abort());
}
// A reader such as `head` may close the pipe; that is no fault of ours.
process.stdout.on('error', () => {});
process.stderr.on('error', () => {});

const coloured = process.stderr.isTTY === true && process.stdout.isTTY === true && process.env.NO_COLOR === undefined;
const context: Context = {
  env: process.env,
  signal: stop.signal,
  hurry: hurry.signal,
  terminal: {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    interactive: process.stderr.isTTY === true,
    columnCount: process.stderr.columns ?? 80,
    paint: coloured ? ansiPaint : noPaint,
    ...(process.stdout.isTTY === true
      ? { screen: () => ({ columnCount: process.stdout.columns ?? 80, rowCount: process.stdout.rows ?? 24 }) }
      : {}),
  },
};

process.exitCode = await dispatch(process.argv.slice(2), context);
