/**
 * What the scriptable engine does with one request. Defaults come from the environment; a prompt
 * overrides them with directives in square brackets:
 *
 *   [step=20ms]        time of each step
 *   [decode=5ms]       time between the last step and the picture
 *   [crash@3]          the process kills itself in step 3
 *   [hang@2]           step 2 never ends, and a cancel is ignored
 *   [stuck@2]          step 2 never ends, but a cancel is honoured
 *   [oom] [oom@2]      RESOURCE_EXHAUSTED/OUT_OF_MEMORY
 *   [nan] [blank]      INTERNAL, after the last step
 *   [garbage]          a picture of the wrong length
 *   [slow-cancel=3s]   goes on that long after a cancel
 *   [noise]            an incompressible picture
 *   [once]             the fault of this prompt happens once in the life of SCRIPT_STATE_DIR
 */
import { parseDurationMs } from '#runtime';

export type FaultKind = 'crash' | 'hang' | 'stuck' | 'oom' | 'nan' | 'blank' | 'garbage';
export interface Fault {
  readonly kind: FaultKind;
  /** 1 is the first step; faults of the finished picture ignore it. */
  readonly atStep: number;
}

export interface Script {
  readonly stepMs: number;
  readonly decodeMs: number;
  readonly cancelDelayMs: number;
  readonly fault: Fault | undefined;
  readonly once: boolean;
  readonly incompressible: boolean;
}

const FAULT = /^(crash|hang|stuck|oom|nan|blank|garbage)(?:@(\d+))?$/;

export function parseFault(text: string): Fault | undefined {
  const match = FAULT.exec(text);
  return match ? { kind: match[1] as FaultKind, atStep: Number(match[2] ?? 1) } : undefined;
}

/** The defaults, changed by the directives in `prompt`. What is no directive is part of the prompt. */
export function readScript(prompt: string, defaults: Script): Script {
  let script = defaults;
  for (const [, directive = ''] of prompt.matchAll(/\[([^\]]+)\]/g)) script = { ...script, ...changeOf(directive) };
  return script;
}

function changeOf(directive: string): Partial<Script> {
  const fault = parseFault(directive);
  if (fault) return { fault };
  if (directive === 'once') return { once: true };
  if (directive === 'noise') return { incompressible: true };
  if (directive === 'slow-cancel') return { cancelDelayMs: 3000 };
  const [name, value = ''] = directive.split('=');
  const durationMs = parseDurationMs(value);
  if (durationMs === undefined) return {};
  if (name === 'step') return { stepMs: durationMs };
  if (name === 'decode') return { decodeMs: durationMs };
  if (name === 'slow-cancel') return { cancelDelayMs: durationMs };
  return {};
}
