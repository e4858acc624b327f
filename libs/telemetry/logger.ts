/**
 * Lines for people and programs: one JSON object a line, or a readable form on a terminal. The one
 * place that knows pino.
 *
 * Lines are written synchronously from this thread. A worker transport would cost start-up time in
 * every process and lose the last lines of one that dies, which are the ones that matter.
 */
import { createRequire } from 'node:module';
import { Writable } from 'node:stream';
import { type DestinationStream, pino, stdTimeFunctions } from 'pino';
import type { PinoPretty } from 'pino-pretty';
import { describeError } from './describe-error.js';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
export type LogFormat = 'json' | 'pretty';

/** Snake case, such as request_id, node_id, duration_ms. An Error goes under `error`. */
export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  /** A logger that adds `fields` to every line. */
  child(fields: LogFields): Logger;
}

export interface LoggerOptions {
  readonly service: string;
  readonly level: LogLevel;
  readonly format: LogFormat;
  /** On every line, such as node_id. */
  readonly fields?: LogFields;
  /** Takes finished lines instead of stdout. */
  readonly destination?: { write(line: string): void };
}

export function createLogger(options: LoggerOptions): Logger {
  return pino(
    {
      level: options.level,
      base: { service: options.service, ...options.fields },
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: describeError, err: describeError },
    },
    options.format === 'pretty' ? prettyStream(options.destination) : (options.destination ?? pino.destination({ dest: 1, sync: true })),
  );
}

/** Drops every line: for tests and for tools that print by themselves. */
export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {}, child: () => silentLogger };

function prettyStream(destination: LoggerOptions['destination']): DestinationStream {
  // Loaded when asked for only: it would add a third to the start-up of every service.
  const pretty = createRequire(import.meta.url)('pino-pretty') as (options: PinoPretty.PrettyOptions) => DestinationStream;
  return pretty({
    sync: true,
    translateTime: 'SYS:HH:MM:ss.l',
    ignore: 'service,node_id',
    messageFormat: '{service}{if node_id} {node_id}{end} · {msg}',
    singleLine: true,
    ...(destination ? { destination: lineSink(destination), colorize: false } : { destination: 1 }),
  });
}

function lineSink(destination: { write(line: string): void }): Writable {
  return new Writable({
    decodeStrings: false,
    write(line: string, _encoding, done) {
      destination.write(line);
      done();
    },
  });
}
