/**
 * Lines of many processes as one log for people: who, how bad, what, with a colour for each process.
 * Callers have a say in what processes write (a request id, a model's name): it is shown printable.
 */
import { printable } from '#core';
import type { Line } from '#local-mesh';
import type { Colour, Paint } from './terminal.js';

const COLOURS: readonly Colour[] = ['cyan', 'magenta', 'blue', 'green', 'yellow'];
const LEVEL_COLOURS: Readonly<Record<string, Colour>> = { warn: 'yellow', error: 'red', fatal: 'red', debug: 'dim' };
/** Of no use to a person who watches. */
const HIDDEN = new Set(['level', 'time', 'msg', 'service', 'pid', 'config', 'from', 'peer']);

/** Returns a function that turns a line into text, or undefined for what is not worth showing. */
export function createLogView(paint: Paint): (line: Line) => string | undefined {
  const colours = new Map<string, Colour>();
  return (line) => {
    const text = textOf(line, paint);
    if (text === undefined) return undefined;
    const colour = colours.get(line.process) ?? COLOURS[colours.size % COLOURS.length] ?? 'cyan';
    colours.set(line.process, colour);
    return `${paint(colour, line.process.padEnd(8))} ${text}\n`;
  };
}

function textOf(line: Line, paint: Paint): string | undefined {
  // NATS tells much about its start; what matters to a person here are its warnings.
  if (line.process === 'nats') return /\[(WRN|ERR|FTL)\]/.test(line.text) ? paint('yellow', printable(line.text)) : undefined;
  const { fields } = line;
  if (!fields || typeof fields.msg !== 'string') return printable(line.text);
  const level = String(fields.level);
  const said = printable(fields.from === 'engine' ? `engine: ${fields.msg}` : fields.msg);
  const message = LEVEL_COLOURS[level] ? paint(LEVEL_COLOURS[level], said) : said;
  const saidByPrefix = (key: string, value: unknown) => key.endsWith('_id') && value === line.process;
  const rest = Object.entries(fields).flatMap(([key, value]) =>
    HIDDEN.has(key) || saidByPrefix(key, value) ? [] : [`${printable(key)}=${short(value)}`],
  );
  return rest.length === 0 ? message : `${message} ${paint('dim', rest.join(' '))}`;
}

function short(value: unknown): string {
  if (typeof value === 'number') return String(Math.round(value * 100) / 100);
  const text = (typeof value === 'string' ? value : JSON.stringify(value))
    .replace(/^\/diffusionmesh\.v1\.(\w+?)(Service)?\//, '$1/') // methods
    .replace(/^([0-9a-f]{12})[0-9a-f]{20,}$/, '$1…'); // digests
  return printable(text.length > 160 ? `${text.slice(0, 159)}…` : text);
}
