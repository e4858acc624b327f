import { expect, test, vi } from 'vitest';
import { ManualClock } from '../../../test/support/manual-clock.js';
import type { NodeEvent } from '../events.js';
import { watchMemory } from './memory-watch.js';
import type { LiveEngine } from './supervisor.js';

const MINUTE_MS = 60_000;

function watched(limitBytes: number) {
  const clock = new ManualClock();
  const events: NodeEvent[] = [];
  const reload = vi.fn();
  let usedBytes = 0;
  const newEngine = () =>
    ({ connection: { status: async () => ({ memoryUsedBytes: BigInt(usedBytes) }) } }) as Pick<LiveEngine, 'connection'>;
  let engine: Pick<LiveEngine, 'connection'> | undefined = newEngine();
  const stop = watchMemory({ limitBytes, clock, emit: (event) => void events.push(event), engine: () => engine, reload });
  const pass = (minutes: number) => clock.advance(minutes * MINUTE_MS);
  const become = (next: number) => {
    usedBytes = next;
  };
  const replace = () => {
    engine = newEngine();
  };
  return { events, reload, stop, pass, become, replace };
}

test('watchMemory() asks once for a fresh engine in place of an old one that has outgrown its limit', async () => {
  const { events, reload, pass, become, replace } = watched(100);
  await pass(60);
  expect(reload).not.toHaveBeenCalled();
  become(101);
  await pass(60);
  expect(events).toEqual([{ type: 'engineOutgrown', usedBytes: 101, limitBytes: 100 }]);
  expect(reload).toHaveBeenCalledOnce();
  replace();
  await pass(5); // too young to be judged
  expect(reload).toHaveBeenCalledOnce();
  await pass(30);
  expect(reload).toHaveBeenCalledTimes(2);
});

test('watchMemory() without a limit, or stopped, asks for nothing', async () => {
  const [unlimited, stopped] = [watched(0), watched(100)];
  stopped.stop();
  for (const each of [unlimited, stopped]) {
    each.become(1000);
    await each.pass(60);
    expect(each.reload).not.toHaveBeenCalled();
  }
});
