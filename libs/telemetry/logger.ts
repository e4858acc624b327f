/**
 * Lines for people and programs: one JSON object a line, or a readable form on a terminal. The one
 * place that knows pino.
 *
 * Lines of a few milliseconds leave together, without waiting for whoever reads them: a write for
 * each line delays the answer it tells of, and a full pipe would stop the event loop. What is left is
 * written when the process ends, also by an error; SIGKILL loses the last FLUSH_MS. A worker transport
 * would cost start-up time in every process and lose more.
 */
import { createRequire } from 'node:module';
import { Writable } from 'node:stream';
import { type DestinationStream, pino, stdTimeFunctions } from 'pino';
import type { PinoPretty } from 'pino-pretty';
import { printable } from '#core';
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
  /** An info line at any level: whoever started this process waits for it. */
  announce(fields: LogFields, message: string): void;
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
  const logger = pino(
    {
      level: options.level,
      base: { service: options.service, ...options.fields },
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: describeError, err: describeError },
    },
    options.format === 'pretty' ? prettyStream(options.destination) : (options.destination ?? inBatches(STDOUT)),
  );
  // A child inherits it, as it does all methods of its parent.
  return Object.assign(logger, {
    announce(this: typeof logger, fields: LogFields, message: string) {
      this.child({}, { level: 'info' }).info(fields, message);
    },
  });
}

const STDOUT = 1;
const FLUSH_MS = 5;
/** Written before FLUSH_MS when there is this much. */
const BATCH_BYTES = 8 * 1024;

/** Writes to an open file. What is left is written until nothing is: a line may be the last one for long. */
export function inBatches(fd: number): DestinationStream {
  // pino flushes it when the process exits.
  const file = pino.destination({ dest: fd, sync: false, minLength: BATCH_BYTES });
  let leftBytes = 0;
  let due = false;
  const flushSoon = () => {
    due = true;
    setTimeout(flush, FLUSH_MS).unref();
  };
  const flush = () => {
    due = false;
    if (leftBytes === 0) return;
    file.flush(); // does nothing while a write is under way: what came meanwhile needs another
    flushSoon();
  };
  file.on('write', (writtenBytes) => {
    leftBytes = Math.max(0, leftBytes - writtenBytes); // more than is left: of before an error
  });
  file.on('error', () => {
    leftBytes = 0; // nobody reads any more
  });
  return {
    write(line) {
      leftBytes += Buffer.byteLength(line);
      file.write(line);
      if (!due) flushSoon();
    },
  };
}

function prettyStream(destination: LoggerOptions['destination']): DestinationStream {
  // Loaded when asked for only: it would add a third to the start-up of every service.
  const pretty = createRequire(import.meta.url)('pino-pretty') as (options: PinoPretty.PrettyOptions) => DestinationStream;
  const stream = pretty({
    sync: true,
    translateTime: 'SYS:HH:MM:ss.l',
    ignore: 'service,node_id',
    messageFormat: '{service}{if node_id} {node_id}{end} · {msg}',
    singleLine: true,
    ...(destination ? { destination: lineSink(destination), colorize: false } : { destination: 1 }),
  });
  return { write: (line) => void stream.write(printableLine(line)) };
}

/** The same line with nothing in its texts that a terminal would obey; a stack keeps its lines, which are indented. */
function printableLine(line: string): string {
  const shown = (key: string, value: unknown) => {
    if (typeof value !== 'string') return value;
    return key === 'stack' ? value.split('\n').map(printable).join('\n') : printable(value);
  };
  return `${JSON.stringify(JSON.parse(line, shown))}\n`;
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
