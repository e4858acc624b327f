/** How a bench asks a process of its mesh what only that can tell (inside.ts). */
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Child } from '#local-mesh';
import type { Inside } from './inside.js';

/** On top of the settings of a process that will be asked. */
export const ASKABLE = {
  NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ''} --import=${pathToFileURL(path.join(import.meta.dirname, 'inside.js'))}`,
};

const answered = new WeakMap<Child, number>();

/** Figures since it was asked before. Collects its garbage, so that its next turn is a long one that is not counted. */
export async function askInside(child: Child): Promise<Inside> {
  const answer = answered.get(child) ?? 0;
  answered.set(child, answer + 1);
  child.kill('SIGUSR2');
  const isAnswer = ({ fields }: { fields?: Readonly<Record<string, unknown>> }) => fields?.msg === 'inside' && fields.answer === answer;
  const line = await child.waitForLine(isAnswer, { timeoutMs: 10_000, what: 'to tell about itself' });
  return line.fields?.inside as Inside;
}
