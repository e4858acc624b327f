import { expect, test } from 'vitest';
import type { RouterEvent } from '../events.js';
import { drawTarget } from './draw-target.js';
import { type Route, readRoutes, routeFaults, writeRoutes } from './route.js';
import { RouteBook } from './route-book.js';

const target = (model: string, weight: number, revision = '') => ({ model, revision, weight });
const route: Route = { name: 'public', targets: [target('a', 70), target('b', 20), target('b', 10, '2')] };
const all = () => true;
const nameOf = (drawn: ReturnType<typeof drawTarget>) => (drawn ? `${drawn.model}@${drawn.revision}` : 'none');

function shares(of: Route, among: Parameters<typeof drawTarget>[2] = all, count = 20_000): Record<string, number> {
  const counts: Record<string, number> = {};
  for (let i = 0; i < count; i++) {
    const name = nameOf(drawTarget(of, `tenant-${i}`, among));
    counts[name] = (counts[name] ?? 0) + 1 / count;
  }
  return counts;
}

test('drawTarget() gives each target its weight', () => {
  const counts = shares(route);
  expect(counts['a@']).toBeCloseTo(0.7, 1);
  expect(counts['b@']).toBeCloseTo(0.2, 1);
  expect(counts['b@2']).toBeCloseTo(0.1, 1);
  expect(Math.abs((counts['a@'] ?? 0) - 0.7)).toBeLessThan(0.015);
});

test('drawTarget() is the same for the same key, in every process and in any order of targets', () => {
  const reversed = { ...route, targets: [...route.targets].reverse() };
  for (let i = 0; i < 1000; i++) expect(drawTarget(reversed, `k${i}`, all)).toEqual(drawTarget(route, `k${i}`, all));
  // Written down: another answer would move every tenant of every mesh at the next upgrade.
  expect(Array.from({ length: 12 }, (_, i) => nameOf(drawTarget(route, `k${i}`, all))).join(' ')).toBe(
    'a@ b@2 a@ a@ a@ a@ a@ a@ b@2 a@ b@ a@',
  );
});

test('a change of weights moves only as many as it must', () => {
  const before: Route = { name: 'r', targets: [target('old', 90), target('new', 10)] };
  const after: Route = { name: 'r', targets: [target('old', 80), target('new', 20)] };
  let moved = 0;
  for (let i = 0; i < 20_000; i++) {
    const [was, is] = [drawTarget(before, `k${i}`, all)?.model, drawTarget(after, `k${i}`, all)?.model];
    if (was !== is) moved++;
    if (was === 'new') expect(is).toBe('new');
  }
  expect(moved / 20_000).toBeCloseTo(0.1, 1);
});

test('a target that is away leaves its callers to the others and gets the same ones back', () => {
  const away = (each: { model: string }) => each.model !== 'a';
  for (let i = 0; i < 1000; i++) {
    const home = drawTarget(route, `k${i}`, all);
    const now = drawTarget(route, `k${i}`, away);
    if (home?.model !== 'a') expect(now).toEqual(home);
    else expect(now?.model).toBe('b');
  }
  expect(drawTarget(route, 'k', () => false)).toBeUndefined();
  expect(drawTarget({ name: 'r', targets: [target('a', 0)] }, 'k', all)).toBeUndefined();
});

test('routes survive being written and read', () => {
  expect(readRoutes(writeRoutes([route]))).toEqual({ ok: true, routes: [route] });
  expect(readRoutes(Buffer.from('{"routes":[{"name":"r","targets":[{"model":"m","weight":1}]}]}'))).toMatchObject({ ok: true });
});

test.each([
  ['no JSON', 'nonsense'],
  ['no list', '{"routes":{}}'],
  ['no object', 'null'],
  ['a name that is a number', '{"routes":[{"name":7,"targets":[{"model":"m","weight":1}]}]}'],
  ['a weight that is text', '{"routes":[{"name":"r","targets":[{"model":"m","weight":"lots"}]}]}'],
  ['no target', '{"routes":[{"name":"r"}]}'],
])('readRoutes() refuses %s', (_, text) => {
  expect(readRoutes(Buffer.from(text))).toMatchObject({ ok: false });
});

test('routeFaults() names every fault at once', () => {
  const faults = routeFaults([
    { name: 'bad name', targets: [target('m', 1), target('m', 2)] },
    { name: 'r', targets: [] },
    { name: 'r', targets: [target('', 1.5), target('m', -1), target('n', 2_000_000, 'x'.repeat(200))] },
    { name: 'z', targets: [target('m', 0)] },
  ]);
  expect(faults.map(({ field }) => field)).toEqual([
    'routes[0].name',
    'routes[0].targets[1]',
    'routes[1].targets',
    'routes[2].name',
    'routes[2].targets[0].model',
    'routes[2].targets[0].weight',
    'routes[2].targets[1].weight',
    'routes[2].targets[2].revision',
    'routes[2].targets[2].weight',
    'routes[3].targets',
  ]);
});

test('the book keeps the last good routes when the store holds nonsense, is lost, or cannot be had', async () => {
  const events: RouterEvent[] = [];
  const book = new RouteBook((event) => events.push(event));
  book.awaitStore();
  const settled = book.settled;
  book.accept(writeRoutes([route]), 3);
  await settled;
  expect(book.settled).toBeUndefined();
  book.accept(Buffer.from('nonsense'), 4);
  book.noteState({ kind: 'waiting' });
  book.noteState({ kind: 'unavailable', cause: 'off' });
  book.accept(undefined, 0);
  expect([...book.routes.keys()]).toEqual(['public']);
  expect(book.revision).toBe(0);
  expect(events.map(({ type }) => type)).toEqual(['routesChanged', 'routesRejected', 'routesUnavailable', 'routesLost']);
  book.accept(undefined, 6); // somebody deleted the key
  expect(book.routes.size).toBe(0);
});
