/**
 * What can only a process itself tell? How much memory it holds when all garbage is collected, and how long the
 * turns of its event loop are. Preloaded into a process by ask-inside.ts; answers SIGUSR2 with a line, and begins anew.
 *
 * A timer that is due every millisecond runs once in each turn: what passes between two of its calls is a turn and at
 * most a millisecond more. On a busy machine most of that is waiting for a core, which is nothing the program does;
 * so CPU time is told apart (of all threads, those of the garbage collector included), and who waited.
 */
import { openSync, readSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Figures of one process since it was last asked. */
export interface Inside {
  /** Heap and buffers in use after all garbage is collected. */
  readonly livingBytes: number;
  readonly turnCount: number;
  /** Of all turns. Milliseconds. */
  readonly turnCpuP99Ms: number;
  readonly turnCpuMaxMs: number;
  /** Of those that waited for no core: what the work itself takes, without what had piled up meanwhile. */
  readonly calmTurnCpuMaxMs: number;
  readonly turnWallMaxMs: number;
  /** Time it could have run and had no core, over all time. */
  readonly starvedRatio: number;
}

interface Instant {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly starvedMs: number;
}

/** A turn that waited less for a core counts as calm. */
const CALM_MS = 1;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;
/** Of the main thread: nanoseconds it ran, and nanoseconds it waited for a core (Linux). */
const accounting = openSync('/proc/self/schedstat', 'r');
const buffer = Buffer.alloc(128);

function now(): Instant {
  const { user, system } = process.cpuUsage();
  const text = buffer.toString('latin1', 0, readSync(accounting, buffer, 0, buffer.length, 0));
  return { wallMs: performance.now(), cpuMs: (user + system) / 1000, starvedMs: Number(text.split(' ')[1]) / 1e6 };
}

let turns: Instant[] = [];
let beganAt = now();
let last = beganAt;
setInterval(() => {
  const at = now();
  turns.push(between(last, at));
  last = at;
}, 1).unref();

let answerCount = 0;
process.on('SIGUSR2', () => {
  const figures = turnFigures();
  turns = []; // a turn each millisecond: they would count as the program's memory
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  const inside: Inside = { livingBytes: heapUsed + external, ...figures };
  process.stdout.write(`${JSON.stringify({ msg: 'inside', answer: answerCount++, inside })}\n`);
  beganAt = now();
  last = beganAt;
});

/** On its own, so that nothing of it is held any more when memory is looked at. */
function turnFigures(): Omit<Inside, 'livingBytes'> {
  const cpuMs = turns.map((turn) => turn.cpuMs).sort((a, b) => a - b);
  const calm = turns.filter(({ starvedMs }) => starvedMs < CALM_MS);
  const all = between(beganAt, now());
  return {
    turnCount: turns.length,
    turnCpuP99Ms: cpuMs[Math.floor(0.99 * cpuMs.length)] ?? 0,
    turnCpuMaxMs: cpuMs.at(-1) ?? 0,
    calmTurnCpuMaxMs: most(calm.map((turn) => turn.cpuMs)),
    turnWallMaxMs: most(turns.map(({ wallMs }) => wallMs)),
    starvedRatio: all.starvedMs / all.wallMs,
  };
}

function between(from: Instant, to: Instant): Instant {
  return { wallMs: to.wallMs - from.wallMs, cpuMs: to.cpuMs - from.cpuMs, starvedMs: to.starvedMs - from.starvedMs };
}

function most(values: readonly number[]): number {
  return values.reduce((max, value) => Math.max(max, value), 0);
}
