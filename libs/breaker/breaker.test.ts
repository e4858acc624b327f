import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Code, Reason, StatusError } from '#core';
import { systemClock } from '#runtime';
import { Breaker, type BreakerEvent, type BreakerOptions } from './breaker.js';
import { rotationListenerCount } from './gate.js';
import { BreakerPool } from './pool.js';

// opossum reads Date.now and sets timers itself, so here time is moved under both of us.
beforeEach(() => {
  vi.useFakeTimers();
});
const opened: { close(): void }[] = [];
afterEach(() => {
  for (const item of opened.splice(0)) item.close();
  expect(vi.getTimerCount()).toBe(0);
  expect(rotationListenerCount()).toBe(0);
  vi.useRealTimers();
});

const after = (ms: number) => vi.advanceTimersByTimeAsync(ms);
const unavailable = new StatusError({ code: Code.UNAVAILABLE, reason: Reason.CONNECTION_LOST, message: 'gone' });
const draining = new StatusError({ code: Code.UNAVAILABLE, reason: Reason.DRAINING, message: 'stopping' });

/** A breaker whose probes wait for the test's verdict. 0.5 means no jitter. */
function start(options: Partial<BreakerOptions> = {}) {
  const events: BreakerEvent[] = [];
  const probes: { resolve: () => void; reject: (error: unknown) => void; signal: AbortSignal }[] = [];
  const breaker = new Breaker({
    name: 'n1',
    clock: systemClock,
    random: () => 0.5,
    emit: (event) => events.push(event),
    probe: (signal) => new Promise((resolve, reject) => probes.push({ resolve, reject, signal })),
    ...options,
  });
  opened.push(breaker);
  const run = (...outcomes: ('success' | 'failure' | 'neutral')[]) => {
    for (const outcome of outcomes) breaker.admit()?.settle(outcome);
  };
  return { breaker, events, probes, run, types: () => events.map((event) => event.type) };
}

const fail3 = ['failure', 'failure', 'failure'] as const;

test('a closed breaker admits everyone and runs no timer', () => {
  const { breaker } = start();
  expect(vi.getTimerCount()).toBe(0);
  expect(Array.from({ length: 1000 }, () => breaker.admit())).not.toContain(undefined);
  expect(breaker.weight).toBe(1);
});

test('it opens on the third failure in a row, not on the second', () => {
  const { breaker, run, events } = start();
  run('failure', 'failure');
  expect(breaker.state).toBe('closed');
  run('failure');
  expect(breaker.state).toBe('open');
  expect(breaker.admit()).toBeUndefined();
  expect(breaker.weight).toBe(0);
  expect(events).toEqual([{ type: 'breakerOpened', node: 'n1', cause: 'consecutiveFailures', detail: '', openMs: 30_000, repeatCount: 0 }]);
});

test('it opens when half of the last ten failed', () => {
  const { breaker, run, events } = start();
  for (let i = 0; i < 4; i++) run('success', 'failure');
  run('success');
  expect(breaker.state).toBe('closed');
  run('failure');
  expect(events[0]).toMatchObject({ type: 'breakerOpened', cause: 'failureRatio' });
});

test("opossum's own percentage never opens it: the very first call may fail", () => {
  const { breaker, run } = start();
  run('failure');
  expect(breaker.state).toBe('closed');
});

test('neutral outcomes neither open it nor break a row of failures', () => {
  const { breaker, run } = start();
  run(...Array.from({ length: 50 }, () => 'neutral' as const));
  run('failure', 'neutral', 'failure', 'neutral');
  expect(breaker.state).toBe('closed');
  run('failure');
  expect(breaker.state).toBe('open');
});

test('a permit counts once, however often it is settled', () => {
  const { breaker } = start();
  const permit = breaker.admit();
  for (let i = 0; i < 5; i++) permit?.settle('failure');
  expect(breaker.state).toBe('closed');
});

test('after 30 s one probe runs, and users are refused until it has succeeded', async () => {
  const { breaker, run, probes } = start();
  run(...fail3);
  await after(29_999);
  expect(breaker.state).toBe('open');
  expect(probes).toHaveLength(0);
  await after(1);
  expect(breaker.state).toBe('halfOpen');
  expect(Array.from({ length: 4 }, () => breaker.admit())).toEqual([undefined, undefined, undefined, undefined]);
  expect(probes).toHaveLength(1);
  probes[0]?.resolve(); // resolves with undefined, which opossum itself would call a failure
  await after(0);
  expect(breaker.state).toBe('closed');
  expect(breaker.admit()).toBeDefined();
});

test('times out double from 30 s to 5 min with each failed probe', async () => {
  const { events, run, probes } = start();
  run(...fail3);
  for (const openMs of [30_000, 60_000, 120_000, 240_000, 300_000, 300_000]) {
    expect(events.at(-1)).toMatchObject({ type: 'breakerOpened', openMs });
    await after(openMs - 1);
    expect(events.at(-1)?.type).toBe('breakerOpened');
    await after(1);
    expect(events.at(-1)?.type).toBe('breakerHalfOpened');
    probes.at(-1)?.reject(unavailable);
    await after(0);
  }
  expect(events.at(-1)).toMatchObject({ cause: 'probeFailed', detail: 'CONNECTION_LOST: gone' });
});

test.each([
  [0, 27_000],
  [1 - 1e-9, 33_000],
])('chance %d spreads the time out to %d ms', (chance, openMs) => {
  const { run, events } = start({ random: () => chance });
  run(...fail3);
  expect(events[0]).toMatchObject({ openMs: expect.closeTo(openMs, 1) });
});

test('healthy time takes doublings back, one a minute', async () => {
  const { events, run, probes } = start();
  run(...fail3);
  await after(30_000);
  probes.at(-1)?.resolve();
  await after(0);
  run(...fail3); // at once again
  expect(events.at(-1)).toMatchObject({ openMs: 60_000, repeatCount: 1 });
  await after(60_000);
  probes.at(-1)?.resolve();
  await after(59_000);
  run(...fail3); // healthy for less than a minute
  expect(events.at(-1)).toMatchObject({ openMs: 120_000, repeatCount: 2 });
  await after(120_000);
  probes.at(-1)?.resolve();
  await after(180_000);
  run(...fail3); // healthy for three
  expect(events.at(-1)).toMatchObject({ openMs: 30_000, repeatCount: 0 });
});

test('a closed breaker has forgotten why it opened', async () => {
  const { breaker, run, probes } = start();
  run(...fail3);
  await after(30_000);
  probes[0]?.resolve();
  await after(0);
  run('failure', 'failure');
  expect(breaker.state).toBe('closed');
});

test('a thousand requests refused while open leave no trace', async () => {
  const { breaker, run, probes } = start();
  run(...fail3);
  for (let i = 0; i < 1000; i++) breaker.admit();
  await after(30_000);
  probes[0]?.resolve();
  await after(0);
  run(...fail3);
  expect(breaker.state).toBe('open');
});

test.each(['success', 'failure'] as const)('a late %s of a call begun before the opening counts for nothing', async (outcome) => {
  const { breaker, run, probes } = start();
  const [early, earlier] = [breaker.admit(), breaker.admit()];
  run(...fail3);
  early?.settle(outcome);
  expect(breaker.state).toBe('open');
  await after(30_000);
  earlier?.settle(outcome);
  expect(breaker.state).toBe('halfOpen');
  probes[0]?.resolve();
  await after(0);
  expect(breaker.state).toBe('closed');
});

test('late failures of an earlier time do not open a breaker that has closed again', async () => {
  const { breaker, run, probes } = start();
  const early = Array.from({ length: 5 }, () => breaker.admit());
  run(...fail3);
  await after(30_000);
  probes[0]?.resolve();
  await after(0);
  for (const permit of early) permit?.settle('failure');
  expect(breaker.state).toBe('closed');
});

test('a probe that never answers has failed after its own time', async () => {
  const { breaker, run, probes, events } = start();
  run(...fail3);
  await after(30_000);
  await after(29_999);
  expect(breaker.state).toBe('halfOpen');
  await after(1);
  expect(breaker.state).toBe('open');
  expect(probes[0]?.signal.aborted).toBe(true);
  expect(events.at(-1)).toMatchObject({ cause: 'probeFailed', detail: expect.stringContaining('within 30000 ms') });
});

test('each probe has a signal of its own, and an old probe that answers late changes nothing', async () => {
  const { breaker, run, probes } = start();
  run(...fail3);
  await after(60_000); // opened, probed, timed out
  await after(60_000); // second probe
  expect(breaker.state).toBe('halfOpen');
  expect(probes).toHaveLength(2);
  expect(probes[1]?.signal.aborted).toBe(false);
  probes[0]?.resolve();
  await after(0);
  expect(breaker.state).toBe('halfOpen');
});

test('a probe refused by a node that drains or is busy is no verdict: soon another, no doubling', async () => {
  const { breaker, run, probes, events } = start();
  run(...fail3);
  await after(30_000);
  probes[0]?.reject(draining);
  await after(0);
  expect(breaker.state).toBe('open');
  expect(events.at(-1)).toEqual({ type: 'breakerProbePostponed', node: 'n1', detail: 'DRAINING: stopping', retryMs: 2000 });
  await after(2000);
  expect(probes).toHaveLength(2);
  probes[1]?.reject(unavailable);
  await after(0);
  expect(events.at(-1)).toMatchObject({ type: 'breakerOpened', openMs: 60_000, repeatCount: 1 });
});

test("a probe refused as the caller's fault does not close it", async () => {
  const { breaker, run, probes } = start();
  run(...fail3);
  await after(30_000);
  probes[0]?.reject(new StatusError({ code: Code.INVALID_ARGUMENT, reason: Reason.BAD_REQUEST, message: 'bad canary' }));
  await after(0);
  expect(breaker.state).toBe('open');
});

test('a probe that throws before it begins has failed', async () => {
  const { breaker, run } = start({
    probe: () => {
      throw new Error('no such node');
    },
  });
  run(...fail3);
  await after(30_000);
  expect(breaker.state).toBe('open');
});

test('a node that comes back gets a quarter of its share, and all of it after eight successes', async () => {
  const { breaker, run, probes } = start();
  run(...fail3);
  await after(30_000);
  expect(breaker.weight).toBe(0);
  probes[0]?.resolve();
  await after(0);
  expect(breaker.weight).toBe(0.25);
  run('success', 'success', 'neutral', 'success', 'success');
  expect(breaker.weight).toBe(0.625);
  run('success', 'success', 'success', 'success');
  expect(breaker.weight).toBe(1);
});

test('a node that comes back and is asked for nothing has all of its share after ten seconds', async () => {
  const { breaker, run, probes } = start();
  run(...fail3);
  await after(30_000);
  probes[0]?.resolve();
  await after(4000);
  expect(breaker.weight).toBeCloseTo(0.25 + 0.75 * 0.4);
  run('success');
  expect(breaker.weight).toBeCloseTo(0.25 + 0.75 * 0.4);
  await after(6000);
  expect(breaker.weight).toBe(1);
});

test('recheck() probes an open node now, and says nothing of opossum having closed meanwhile', async () => {
  const { breaker, probes, run, types } = start();
  breaker.recheck(); // closed: nothing to check
  run(...fail3);
  breaker.recheck();
  expect(breaker.state).toBe('open');
  await after(1);
  expect(breaker.state).toBe('halfOpen');
  breaker.recheck(); // a probe is under way
  expect(probes).toHaveLength(1);
  probes[0]?.resolve();
  await after(0);
  expect(types()).toEqual(['breakerOpened', 'breakerHalfOpened', 'breakerClosed']);
  await after(600_000);
  expect(breaker.state).toBe('closed');
});

test('reset() lets a new incarnation in at full weight, with nothing counted but how often it opened', async () => {
  const { breaker, run, probes, events } = start();
  run('failure', 'failure');
  breaker.reset();
  run('failure', 'failure');
  expect(breaker.state).toBe('closed');
  run('failure');
  await after(30_000);
  breaker.reset();
  expect(breaker.state).toBe('closed');
  expect(breaker.weight).toBe(1);
  expect(events.at(-1)).toEqual({ type: 'breakerClosed', node: 'n1', cause: 'reset' });
  probes[0]?.reject(unavailable); // the probe of the old incarnation
  await after(0);
  expect(breaker.state).toBe('closed');
  run(...fail3);
  expect(events.at(-1)).toMatchObject({ type: 'breakerOpened', openMs: 60_000 });
});

test('close() leaves no timer, aborts the probe and says no more', async () => {
  const { breaker, probes, run, events } = start();
  run(...fail3);
  await after(30_000);
  breaker.close();
  const told = events.length;
  probes[0]?.resolve();
  await after(600_000);
  expect(probes[0]?.signal.aborted).toBe(true);
  expect(events).toHaveLength(told);
  expect(vi.getTimerCount()).toBe(0);
});

function startPool(nodes: readonly string[]) {
  const events: BreakerEvent[] = [];
  const pool = new BreakerPool({
    clock: systemClock,
    random: () => 0.5,
    emit: (event) => events.push(event),
    probe: () => Promise.resolve(),
  });
  opened.push(pool);
  for (const node of nodes) pool.of(node);
  const fail = (node: string) => {
    for (let i = 0; i < 3; i++) pool.of(node).admit()?.settle('failure');
  };
  const open = () => nodes.filter((node) => pool.of(node).state === 'open');
  return { pool, events, fail, open };
}

test.each([
  [['a'], []],
  [['a', 'b'], ['a']],
  [['a', 'b', 'c'], ['a']],
  [
    ['a', 'b', 'c', 'd'],
    ['a', 'b'],
  ],
])('of %j failing, suspicion ejects only %j', (nodes, ejected) => {
  const { fail, open } = startPool(nodes);
  for (const node of nodes) fail(node);
  expect(open()).toEqual(ejected);
});

test('a refused opening is told once, and happens when another node has come back', async () => {
  const { pool, fail, open, events } = startPool(['a', 'b']);
  fail('a');
  fail('b');
  fail('b');
  expect(events.filter((event) => event.type === 'breakerTripRefused')).toEqual([
    { type: 'breakerTripRefused', node: 'b', cause: 'consecutiveFailures' },
  ]);
  await after(30_000);
  expect(pool.of('a').state).toBe('closed');
  fail('b');
  expect(open()).toEqual(['b']);
});

test('eject() opens a node for what its outcomes do not show; its cause stays until a probe lets it back', async () => {
  const { breaker, events, probes } = start();
  expect(breaker.cause).toBeUndefined();
  expect(breaker.eject('tooSlow', 'takes 4.0 times what it should')).toBe(true);
  expect(breaker.eject('tooSlow', 'again')).toBe(false);
  expect(events).toMatchObject([{ type: 'breakerOpened', cause: 'tooSlow', detail: 'takes 4.0 times what it should', openMs: 30_000 }]);
  await after(30_000);
  probes[0]?.reject(unavailable);
  await after(0);
  expect([breaker.state, breaker.cause]).toEqual(['open', 'tooSlow']);
  await after(60_000);
  probes[1]?.resolve();
  await after(0);
  expect([breaker.state, breaker.cause]).toEqual(['closed', undefined]);
});

test('eject() leaves half of the nodes', () => {
  const { pool } = startPool(['a', 'b', 'c']);
  expect(['a', 'b', 'c'].map((node) => pool.of(node).eject('tooSlow', ''))).toEqual([true, false, false]);
});

test('forget() ends the timers of a node and takes it out of the count', () => {
  const { pool, fail, open, events } = startPool(['a', 'b', 'c']);
  fail('a');
  pool.forget('a');
  pool.forget('a');
  expect(vi.getTimerCount()).toBe(0);
  expect(events.at(-1)).toEqual({ type: 'breakerForgotten', node: 'a' });
  fail('b');
  expect(open()).toEqual(['b']);
  expect(pool.of('a').state).toBe('closed');
});

test('breakers share nothing: options, probes and counts are their own', async () => {
  const probed: string[] = [];
  const pool = new BreakerPool({
    clock: systemClock,
    random: () => 0.5,
    emit: () => {},
    probe: async (node) => void probed.push(node),
  });
  opened.push(pool);
  pool.of('b');
  for (let i = 0; i < 3; i++) pool.of('a').admit()?.settle('failure');
  await after(30_000);
  expect(probed).toEqual(['a']);
  expect(pool.of('b').weight).toBe(1);
});

test('a thousand breakers make no warning about listeners', () => {
  const warnings = vi.spyOn(process, 'emitWarning');
  const { pool } = startPool(Array.from({ length: 1000 }, (_, i) => `n${i}`));
  expect(pool.of('n999').state).toBe('closed');
  expect(warnings).not.toHaveBeenCalled();
});

test.each([-0.1, 1.1, Number.NaN])('minHealthyRatio %d is refused', (minHealthyRatio) => {
  const options = { clock: systemClock, random: () => 0.5, emit: () => {}, probe: async () => {}, minHealthyRatio };
  expect(() => new BreakerPool(options)).toThrow(RangeError);
});
