/** Engine events as JSON lines, which the node forwards. Kept by hand: a logging library costs more start-up than the socket. */
import { Code, codeName } from '#core';
import type { EngineEvent } from './events.js';

export type Level = 'debug' | 'info' | 'warn' | 'error';
export type Log = (level: Level, msg: string, fields?: Readonly<Record<string, unknown>>) => void;

export const LEVELS: readonly Level[] = ['debug', 'info', 'warn', 'error'];

export interface LogOptions {
  readonly minLevel: Level;
  readonly write: (line: string) => void;
  readonly epochMs: () => number;
}

export function jsonLog({ minLevel, write, epochMs }: LogOptions): Log {
  return (level, msg, fields = {}) => {
    if (LEVELS.indexOf(level) < LEVELS.indexOf(minLevel)) return;
    write(`${JSON.stringify({ level, time: epochMs(), name: 'engine-onnx', msg, ...fields })}\n`);
  };
}

/** Codes that say something about the caller, not about the engine. */
const CALLERS_FAULT: ReadonlySet<Code> = new Set([Code.OK, Code.CANCELLED, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.DEADLINE_EXCEEDED]);

export function logEvent(log: Log, event: EngineEvent): void {
  const { level, msg, fields } = lineOf(event);
  log(level, msg, fields);
}

interface Line {
  readonly level: Level;
  readonly msg: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

function lineOf(event: EngineEvent): Line {
  switch (event.type) {
    case 'callEnded': {
      const { type: _type, error, notes, code, ...fields } = event;
      const cause = error?.cause instanceof Error ? { cause: error.cause.message } : {};
      const text = error ? { error: error.message, ...cause } : {};
      const level = CALLERS_FAULT.has(code) ? 'debug' : 'warn';
      return { level, msg: 'call ended', fields: { ...fields, ...notes, code: codeName(code), ...text } };
    }
    case 'modelLoaded':
      return { level: 'info', msg: 'model loaded', fields: fieldsOf(event) };
    case 'modelUnloaded':
      return { level: 'info', msg: 'model unloaded', fields: fieldsOf(event) };
    case 'pictureDrawn':
      return { level: 'debug', msg: 'picture drawn', fields: fieldsOf(event) };
    case 'parentGone':
      return { level: 'warn', msg: 'parent process is gone', fields: fieldsOf(event) };
    default:
      throw new TypeError(`no such event: ${JSON.stringify(event satisfies never)}`);
  }
}

function fieldsOf({ type: _type, ...fields }: EngineEvent): Record<string, unknown> {
  return fields;
}
