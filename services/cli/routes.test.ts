import { afterEach, expect, test } from 'vitest';
import { admin } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import { type HandlersOf, Server } from '#grpc';
import { systemClock } from '#runtime';
import { runDmesh } from '../../test/support/run-dmesh.js';
import { ExitCode } from './command.js';
import { readRouteArguments } from './route-arguments.js';

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

type Handlers = HandlersOf<typeof admin.MeshAdminServiceService>;

/** Keeps routes as a mesh does. */
async function router(overrides: Partial<Handlers> = {}) {
  const kept = { routes: [] as admin.Route[], revision: 0n, forced: false };
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20 });
  const none = () => Promise.reject(new Error('not part of this test'));
  server.add(admin.MeshAdminServiceService, {
    ...{ listNodes: none, watchMesh: none, drain: none, resume: none },
    getRoutes: async () => ({ routes: kept.routes, revision: kept.revision }),
    setRoutes: async ({ request }) => {
      if (request.expectedRevision !== kept.revision) throw new Error('the wrong revision');
      kept.routes = request.routes;
      kept.forced = request.force;
      return { revision: ++kept.revision };
    },
    ...overrides,
  });
  cleanups.push(() => server.close());
  const address = `127.0.0.1:${await server.listen('127.0.0.1:0')}`;
  const dmesh = (...args: readonly string[]) => runDmesh([...args, '--router', address]);
  return { kept, dmesh };
}

const read = (...args: string[]) => {
  const faults: string[] = [];
  return { routes: [...readRouteArguments(args, (fault) => faults.push(fault)).values()], faults };
};

test('routes are read as people type them', () => {
  expect(read('z-image=z-image-tiny:90,z-image-tiny@2026-11-2:10', 'p=a:b:3', 'q=m@r:1:2', 'gone=')).toEqual({
    faults: [],
    routes: [
      {
        name: 'z-image',
        targets: [
          { model: 'z-image-tiny', revision: '', weight: 90 },
          { model: 'z-image-tiny', revision: '2026-11-2', weight: 10 },
        ],
      },
      { name: 'p', targets: [{ model: 'a:b', revision: '', weight: 3 }] },
      { name: 'q', targets: [{ model: 'm', revision: 'r:1', weight: 2 }] },
      { name: 'gone', targets: [] },
    ],
  });
});

test.each([
  [['nonsense'], 'expected NAME=TARGET, got "nonsense"'],
  [['=m'], 'expected NAME=TARGET'],
  [['a=m', 'a=n'], 'expected each route once, got "a" twice'],
  [['a=m,,n'], 'expected MODEL'],
  [['a=@3'], 'expected MODEL'],
  [['a=m:99999999999'], 'expected a weight'],
  [['a=m:-1'], 'expected a weight (a whole number) behind the last colon, got "-1" in "m:-1"'],
  [['a=m@3:0.5'], 'expected a weight'],
  [['a=m:'], 'expected a weight'],
  [[], 'expected routes such as'],
])('%j is refused', async (args, fault) => {
  expect(read(...args).faults.join()).toContain(fault);
  const { dmesh } = await router();
  const ran = await dmesh('routes', 'set', ...args);
  expect(ran).toMatchObject({ code: ExitCode.USAGE, out: '', err: expect.stringContaining(fault) });
});

test('set changes the routes it names and leaves the others; get shows their shares', async () => {
  const { kept, dmesh } = await router();
  expect((await dmesh('routes', 'get')).out).toContain('no routes');
  expect(await dmesh('routes', 'set', 'z-image=tiny@3:90,tiny@4:10', '--force')).toMatchObject({ code: 0, err: '' });
  expect(kept.forced).toBe(true);
  const { out } = await dmesh('routes', 'set', 'b=tiny');
  expect(out).toMatch(/ROUTE +SHARE +MODEL +REVISION\nb +100 % +tiny +any\nz-image +90 % +tiny +3\n +10 % +tiny +4\n/);
  expect(kept).toMatchObject({ revision: 2n, forced: false });
  await dmesh('routes', 'set', 'z-image=');
  expect(JSON.parse((await dmesh('routes', 'get', '--json')).out)).toEqual({
    revision: 3,
    routes: [{ name: 'b', targets: [{ model: 'tiny', revision: '', weight: 1 }] }],
  });
  expect(await dmesh('routes', 'set', 'nobody=')).toMatchObject({ code: ExitCode.USAGE, err: expect.stringContaining('"nobody"') });
});

test('a refusal names routes and targets as they were typed', async () => {
  const violations = [
    { field: 'routes[0].targets[1]', description: 'no node serves "tiny@9"; there are the revisions 3' },
    { field: 'routes[0].targets[2]', description: 'no node serves "tiny:abc"' },
    { field: 'routes[1].name', description: 'expected something else' },
  ];
  const refuse = async () => {
    throw new StatusError({ code: Code.FAILED_PRECONDITION, reason: Reason.ROUTE_UNSERVED, message: 'long', violations });
  };
  const { dmesh } = await router({ setRoutes: refuse });
  const ran = await dmesh('routes', 'set', 'a=tiny:1,tiny@9:1,tiny:abc', 'b b=tiny');
  expect(ran.code).toBe(ExitCode.REFUSED);
  expect(ran.err.split('\n').map((line) => line.replace(/^(error:)? +| \(FAILED.*/g, ''))).toMatchObject([
    'a → tiny@9: no node serves "tiny@9"; there are the revisions 3',
    'a → tiny:abc: expected a weight (a whole number) behind the last colon, got "abc"; or no node serves "tiny:abc"',
    'b b: expected something else',
    expect.stringContaining('try:'),
    '',
  ]);
  expect(ran.err).toContain('--force');
});

test('every wrong argument is named at once, and so is the way to take a route away', async () => {
  const { dmesh } = await router();
  const wrong = await dmesh('routes', 'set', 'nonsense', 'a=m:-1', 'b=,');
  expect(wrong.err).toMatch(/"nonsense"\n.*"-1".*\n.*got ""\n.*got ""\n.*dmesh routes --help/);
  expect((await dmesh('routes', 'set', 'one=', 'two=')).err).toMatch(/"one"\n.*"two"\n/);
  expect(await dmesh('routes', 'remove', 'a')).toMatchObject({
    code: ExitCode.USAGE,
    err: expect.stringContaining('"dmesh routes set a="'),
  });
});

test.each([[['routes']], [['routes', 'eat']], [['routes', 'get', 'more']]])('%j is a wrong command line', async (args) => {
  const { dmesh } = await router();
  expect((await dmesh(...args)).code).toBe(ExitCode.USAGE);
});
