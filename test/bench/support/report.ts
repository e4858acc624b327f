/** How a bench speaks: a table for people, and with `--json FILE` the same figures for programs. */
import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { parseArgs } from 'node:util';

const known: Record<string, { readonly type: 'string'; readonly default?: string }> = { json: { type: 'string' } };

/** The FILE of `--json FILE`. Any argument that is no flag of this program is an error. */
export function jsonFile(): string | undefined {
  const { json } = parseArgs({ options: known }).values;
  return typeof json === 'string' ? json : undefined;
}

/** Further flags of this program with what they are when absent, such as { rounds: '20' } for `--rounds N`. */
export function readFlags<Name extends string>(defaults: Readonly<Record<Name, string>>): Readonly<Record<Name, string>> {
  for (const [name, text] of Object.entries<string>(defaults)) known[name] = { type: 'string', default: text };
  return parseArgs({ options: known }).values as Record<Name, string>;
}

export interface Machine {
  readonly cores: number;
  readonly cpu: string;
  readonly memoryGiB: number;
  readonly node: string;
}

/** Figures mean little without the machine they were taken on. */
export function machine(): Machine {
  return {
    cores: availableParallelism(),
    cpu: cpus()[0]?.model ?? 'unknown',
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    node: process.version,
  };
}

/** A string is printed as it is; a number with two decimals; null, a figure that could not be taken, as a dash. */
export type Cell = string | number | null;

export function printTable(title: string, columns: readonly string[], rows: readonly (readonly Cell[])[]): void {
  const cells = [columns, ...rows.map((row) => row.map(text))];
  const widths = columns.map((_, i) => Math.max(...cells.map((row) => row[i]?.length ?? 0)));
  console.log(`\n${title}`);
  for (const row of cells) {
    console.log(`  ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  ')}`);
  }
}

/** Prints the machine and, when asked to, writes the figures and the machine as one JSON object. */
export function finish(figures: object): void {
  const on = machine();
  console.log(`\n  ${on.cores} × ${on.cpu}, ${on.memoryGiB} GiB, Node ${on.node}`);
  const file = jsonFile();
  if (file !== undefined) writeFileSync(file, `${JSON.stringify({ ...figures, machine: on }, undefined, 2)}\n`);
}

export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

/** Three significant digits are what these measurements hold. */
export function rounded(value: number): number {
  return Number(value.toPrecision(3));
}

function text(cell: Cell): string {
  if (cell === null) return '–';
  return typeof cell === 'number' ? cell.toFixed(2) : cell;
}
