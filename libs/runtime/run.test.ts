import { expect, test } from 'vitest';
import { ManualClock } from '../../test/support/manual-clock.js';
import { Lifecycle, part } from './lifecycle.js';
import { type Host, type Program, runProgram, type StopRequest } from './run.js';

/** A part that says what happens to it. */
function told(name: string, log: string[], start = async () => {}) {
  return part(name, {
    start: async () => {
      log.push(`start ${name}`);
      await start();
    },
    drain: async () => void log.push(`drain ${name}`),
    close: async () => void log.push(`close ${name}`),
  });
}

function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

const settled = () => new Promise<void>((resolve) => setImmediate(resolve));

function startProgram(lifecycle: Lifecycle, why: StopRequest = 'SIGTERM') {
  const asked = gate();
  const exits: number[] = [];
  const failures: unknown[] = [];
  let readyCount = 0;
  const program: Program<object> = {
    name: 'p',
    summary: '',
    envPrefix: 'P_',
    parse: () => ({}),
    build: async () => lifecycle,
    onReady: () => void readyCount++,
    onFailed: (_message, error) => failures.push(error),
  };
  const host: Host = {
    argv: [],
    env: {},
    stdout: () => {},
    stderr: () => {},
    stopRequested: asked.opened.then(() => why),
    exit: (code) => void exits.push(code),
  };
  const ran = runProgram(program, host);
  return { ran, askToStop: asked.open, exits, failures, readyCount: () => readyCount };
}

test('a program starts, stops on request and ends with 0', async () => {
  const log: string[] = [];
  const { ran, askToStop, exits, readyCount } = startProgram(
    new Lifecycle([told('a', log), told('b', log)], { clock: new ManualClock(), graceMs: 100 }),
  );
  await settled();
  expect([readyCount(), exits]).toEqual([1, []]);
  askToStop();
  await ran;
  expect(exits).toEqual([0]);
  expect(log).toEqual(['start a', 'start b', 'drain b', 'drain a', 'close b', 'close a']);
});

test('a stop request ends a program whose start hangs: within a second, with 0, without starting more', async () => {
  const log: string[] = [];
  const clock = new ManualClock();
  const parts = [told('a', log), told('hangs', log, () => new Promise(() => {})), told('c', log)];
  const { ran, askToStop, exits, failures, readyCount } = startProgram(new Lifecycle(parts, { clock, graceMs: 120_000 }));
  await settled();
  askToStop();
  await settled();
  await clock.advance(1000);
  await ran;
  expect([exits, failures, readyCount()]).toEqual([[0], [], 0]);
  expect(log).toEqual(['start a', 'start hangs', 'drain a', 'close hangs', 'close a']);
  expect(clock.pendingCount).toBe(0);
});

test.each<[StopRequest, number]>([
  ['SIGTERM', 30_000],
  ['parent gone', 5000],
])('what does not drain after %s is cut after %i ms', async (why, graceMs) => {
  const clock = new ManualClock();
  const log: string[] = [];
  const busy = part('busy', { drain: () => new Promise(() => {}), close: async () => void log.push('close busy') });
  const { ran, askToStop, exits } = startProgram(new Lifecycle([busy], { clock, graceMs: 30_000 }), why);
  await settled();
  askToStop();
  await settled();
  await clock.advance(graceMs - 1);
  expect(log).toEqual([]);
  await clock.advance(1);
  await ran;
  expect([log, exits]).toEqual([['close busy'], [0]]);
});

test('a part that gets ready right after the stop request leaves as any other', async () => {
  const log: string[] = [];
  const slow = gate();
  const { ran, askToStop, exits } = startProgram(
    new Lifecycle([told('slow', log, () => slow.opened), told('b', log)], { clock: new ManualClock(), graceMs: 100 }),
  );
  await settled();
  askToStop();
  await settled();
  slow.open();
  await ran;
  expect(exits).toEqual([0]);
  expect(log).toEqual(['start slow', 'drain slow', 'close slow']);
});

test('a part that gets ready when all others have left is closed once more: it may hold something now', async () => {
  const log: string[] = [];
  const slow = gate();
  const clock = new ManualClock();
  const lifecycle = new Lifecycle([told('slow', log, () => slow.opened)], { clock, graceMs: 500 });
  const starting = lifecycle.start();
  const stopping = lifecycle.stop();
  await clock.advance(500);
  await stopping;
  slow.open();
  await expect(starting).resolves.toBeUndefined();
  expect(log).toEqual(['start slow', 'close slow', 'close slow']);
  expect(lifecycle.phase).toBe('stopped');
});

test('a start that fails closes what had begun, and the program ends with 1', async () => {
  const log: string[] = [];
  const broken = async () => {
    throw new Error('no port');
  };
  const { ran, exits, failures } = startProgram(
    new Lifecycle([told('a', log), told('b', log, broken), told('c', log)], { clock: new ManualClock(), graceMs: 100 }),
  );
  await ran;
  expect([exits, failures]).toEqual([[1], [new Error('no port')]]);
  expect(log).toEqual(['start a', 'start b', 'close b', 'close a']);
});
