/** The scriptable engine's environment: the engine contract's variables and SCRIPT_ defaults. */
import type { EnvReader } from '#runtime';
import { type Fault, parseFault, type Script } from './script.js';

export interface ScriptableConfig {
  readonly socket: string;
  readonly parentPid: number;
  readonly loadMs: number;
  /** The same after the first of a process. */
  readonly laterLoadMs: number;
  /** Models that fit in its memory. */
  readonly modelRoom: number;
  /** For marks that outlive the process: starts, and faults that happen once. */
  readonly stateDir: string | undefined;
  /** So many starts exit at once before one succeeds. Needs the state folder. */
  readonly failedStartCount: number;
  /** From this start on, pictures differ: an engine gone wrong. 0: never. Needs the state folder. */
  readonly driftFromStart: number;
  readonly determinismClass: string;
  readonly script: Script;
}

export function parseConfig(read: EnvReader): ScriptableConfig {
  const socket = read.string('DMESH_ENGINE_SOCKET', '', 'Unix socket to listen on.');
  const parentPid = read.integer('DMESH_ENGINE_PARENT_PID', 0, { min: 0, max: 2 ** 31 - 1 }, 'Exit when this parent is gone; 0: never.');
  const faultText = read.optionalString('SCRIPT_FAULT', 'Fault of every request, such as crash@3; the canary is spared.');
  let fault: Fault | undefined;
  if (faultText !== undefined) {
    fault = parseFault(faultText);
    if (!fault) read.fault(`SCRIPT_FAULT: expected a fault such as crash@3 or oom, got ${JSON.stringify(faultText)}`);
  }
  if (socket === '') read.fault('DMESH_ENGINE_SOCKET: expected a path, got nothing');
  const loadMs = read.durationMs('SCRIPT_LOAD', 0, 'Time Load takes.');
  return read.done({
    socket,
    parentPid,
    loadMs,
    laterLoadMs: read.durationMs('SCRIPT_LATER_LOADS', loadMs, 'Time every Load but the first of a process takes.'),
    modelRoom: read.integer('SCRIPT_MODEL_ROOM', 64, { min: 1, max: 64 }, 'Models that fit in its memory.'),
    stateDir: read.optionalString('SCRIPT_STATE_DIR', 'Folder for marks that outlive the process.'),
    failedStartCount: read.integer('SCRIPT_FAILED_STARTS', 0, { min: 0, max: 1000 }, 'Starts that exit at once before one succeeds.'),
    driftFromStart: read.integer('SCRIPT_DRIFT_FROM_START', 0, { min: 0, max: 1000 }, 'Pictures differ from this start on; 0: never.'),
    determinismClass: read.string('SCRIPT_DETERMINISM_CLASS', 'scripted/1', 'Determinism class to report.'),
    script: {
      stepMs: read.durationMs('SCRIPT_STEP', 5, 'Time of each step.'),
      decodeMs: read.durationMs('SCRIPT_DECODE', 0, 'Time between the last step and the picture.'),
      cancelDelayMs: read.durationMs('SCRIPT_SLOW_CANCEL', 0, 'Goes on that long after a cancel.'),
      fault,
      once: read.boolean('SCRIPT_ONCE', false, 'SCRIPT_FAULT happens once in the life of the state folder.'),
      incompressible: read.boolean('SCRIPT_NOISE', false, 'Incompressible pictures.'),
    },
  });
}
