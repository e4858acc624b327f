import { afterEach, expect, test } from 'vitest';
import { ManualClock } from '../../test/support/manual-clock.js';
import { SharedWatch } from './shared-watch.js';

const clock = new ManualClock();
const stops: AbortController[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) stop.abort();
  await clock.advance(0);
  expect(clock.pendingCount).toBe(0); // nobody watches, nothing ticks
});

function watched(): { state: { value: number; drawn: number }; watcher: () => string[] } {
  const state = { value: 1, drawn: 0 };
  const watch = new SharedWatch({
    clock,
    intervalMs: 500,
    draw: async () => {
      state.drawn++;
      return Buffer.from(String(state.value));
    },
  });
  const watcher = () => {
    const stop = new AbortController();
    stops.push(stop);
    const seen: string[] = [];
    void (async () => {
      for await (const bytes of watch.watch(stop.signal)) seen.push(bytes.toString());
    })();
    return seen;
  };
  return { state, watcher };
}

test('all watchers share one picture per interval', async () => {
  const { state, watcher } = watched();
  const all = Array.from({ length: 100 }, watcher);
  await clock.advance(0);
  expect(all.map((seen) => seen.join())).toEqual(all.map(() => '1'));
  expect(state).toMatchObject({ drawn: 1 });
  state.value = 2;
  await clock.advance(499);
  expect(all[0]).toEqual(['1']);
  await clock.advance(1);
  expect(all.map((seen) => seen.join())).toEqual(all.map(() => '1,2'));
  expect(state).toMatchObject({ drawn: 2 });
});

test('a picture without news is not told', async () => {
  const { state, watcher } = watched();
  const seen = watcher();
  await clock.advance(5000);
  expect(seen).toEqual(['1']);
  expect(state).toMatchObject({ drawn: 11 });
});

test('who comes later sees the picture at once, and after a pause nobody sees an old one', async () => {
  const { state, watcher } = watched();
  watcher();
  await clock.advance(200);
  const second = watcher();
  await clock.advance(0);
  expect(second).toEqual(['1']);
  for (const stop of stops.splice(0)) stop.abort();
  await clock.advance(60_000);
  state.value = 7;
  const third = watcher();
  await clock.advance(0);
  expect(third).toEqual(['7']);
});
