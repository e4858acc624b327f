/** What a route does to requests: a router with nodes of several models and revisions, over real sockets. */
import { afterEach, expect, test } from 'vitest';
import { admin, generation } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import { Channel, Server } from '#grpc';
import { systemClock } from '#runtime';
import { FAKE_MODEL, FakeNode } from '../../test/support/fake-node.js';
import { CONFIG, cleanUp, cleanups, joined } from '../../test/support/router-world.js';
import { Access } from './access.js';
import { routeHandlers } from './rpc/routes.js';
import { createRouter } from './service.js';

const Pictures = generation.ImageGenerationServiceService;
const Admin = admin.MeshAdminServiceService;
afterEach(cleanUp);

async function startRouter(nodes: readonly FakeNode[]) {
  for (const node of nodes) {
    await node.start();
    cleanups.push(() => node.stop());
  }
  const router = createRouter({
    config: CONFIG,
    access: new Access({ clock: systemClock, emit: () => {}, needsToken: false, anonymousRatePerSec: 0 }),
    clock: systemClock,
    random: Math.random,
    emit: () => {},
    evidence: () => {},
  });
  for (const node of nodes) router.fleet.follow(joined(node));
  await expect.poll(() => [...router.fleet].every(({ link }) => link.connected)).toBe(true);
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20 });
  server.add(Pictures, router.handlers);
  let revision = 0;
  const store = {
    replace: async (data: Uint8Array, expected: number) => {
      if (expected !== revision) throw new StatusError({ code: Code.ABORTED, reason: Reason.CHANGED_MEANWHILE, message: 'changed' });
      router.routes.accept(data, ++revision);
      return revision;
    },
  };
  const { getRoutes, setRoutes } = routeHandlers({ fleet: router.fleet, routes: router.routes, store });
  const none = () => Promise.reject(new Error('not part of this test'));
  server.add(Admin, { listNodes: none, watchMesh: none, drain: none, resume: none, getRoutes, setRoutes });
  const channel = new Channel(`127.0.0.1:${await server.listen('127.0.0.1:0')}`, { clock: systemClock });
  cleanups.push(async () => {
    channel.close();
    await server.close();
    router.close();
  });
  const draw = async (fields: Partial<generation.GenerateRequest>, metadata: Record<string, string> = {}) =>
    (await channel.unary(Pictures.generate, generation.GenerateRequest.fromPartial({ prompt: 'x', ...fields }), { metadata })).response
      .nodeId;
  const set = async (routes: Parameters<typeof admin.Route.fromPartial>[0][], more: Partial<admin.SetRoutesRequest> = {}) =>
    (await channel.unary(Admin.setRoutes, admin.SetRoutesRequest.fromPartial({ routes, ...more }))).response.revision;
  return { router, channel, draw, set };
}

const one = (nodeId: string, revision: string, name = 'fake') =>
  new FakeNode(nodeId, { model: { ...FAKE_MODEL, name, revision }, slotCount: 8 });
const split = {
  name: 'public',
  targets: [
    { model: 'fake', revision: '1', weight: 50 },
    { model: 'fake', revision: '2', weight: 50 },
  ],
};

test('requests are split by weight, equal ids get equal targets, revisions are honoured', async () => {
  const { draw, set } = await startRouter([one('n1', '1'), one('n2', '2')]);
  expect(await set([split])).toBe(1n);
  const ids = Array.from({ length: 60 }, (_, i) => `r${i}`);
  const first = await Promise.all(ids.map((requestId) => draw({ model: 'public', requestId })));
  const again = await Promise.all(ids.map((requestId) => draw({ model: 'public', requestId })));
  expect(again).toEqual(first);
  const onFirst = first.filter((node) => node === 'n1').length;
  expect(onFirst).toBeGreaterThan(15);
  expect(onFirst).toBeLessThan(45);
  const attempts = ids.slice(0, 8).map((requestId) => draw({ model: 'public', requestId }, { 'x-mesh-route-key': 'one-job' }));
  expect(new Set(await Promise.all(attempts)).size).toBe(1);
});

test('a node that has the model goes before one that must load it, and hears which revision is meant', async () => {
  const ready = new FakeNode('n1', { slotCount: 2 });
  const other = new FakeNode('n2', { slotCount: 2, model: { ...FAKE_MODEL, loaded: false, loadMs: 60_000 } });
  const { router, draw, set } = await startRouter([other, ready]);
  const revisions: (string | undefined)[] = [];
  ready.draw = async ({ metadata }) => void revisions.push(metadata['x-mesh-revision']);
  await set([{ name: 'public', targets: [{ model: 'fake', revision: '1', weight: 1 }] }]);
  for (const model of ['fake', 'public', 'fake']) expect(await draw({ model })).toBe('n1');
  expect(revisions).toEqual([undefined, '1', undefined]);
  expect(router.fleet.model('fake', '')).toMatchObject({ nodeCount: 2, loadedCount: 1, loadMs: 60_000 });
  ready.accepting = false;
  ready.announce();
  await expect.poll(() => router.fleet.get('n1')?.usable).toBe(false);
  expect(await draw({ model: 'fake' })).toBe('n2');
});

test('a route hides the model of its name, live; requests for other names are untouched', async () => {
  const { draw, set } = await startRouter([one('n1', '1'), one('n2', '2'), one('n3', '7', 'other')]);
  const nodesOf = async (model: string) => new Set(await Promise.all(Array.from({ length: 20 }, () => draw({ model }))));
  await set([{ name: 'fake', targets: [{ model: 'fake', revision: '2', weight: 1 }] }]);
  expect(await nodesOf('fake')).toEqual(new Set(['n2']));
  expect(await nodesOf('other')).toEqual(new Set(['n3']));
  await set([{ name: 'fake', targets: [{ model: 'other', weight: 1 }] }], { expectedRevision: 1n });
  expect(await nodesOf('fake')).toEqual(new Set(['n3']));
  await set([], { expectedRevision: 2n });
  await expect(draw({ model: 'public' })).rejects.toMatchObject({ reason: Reason.UNKNOWN_MODEL });
});

test('equal requests with a seed are not joined across revisions', async () => {
  const { draw, set } = await startRouter([one('n1', '1'), one('n2', '2')]);
  await set([split]);
  const nodes = await Promise.all(Array.from({ length: 40 }, (_, i) => draw({ model: 'public', requestId: `s${i}`, seed: 7n })));
  expect(new Set(nodes)).toEqual(new Set(['n1', 'n2']));
});

test('a target that nobody serves is refused with every reason, unless forced; then the others step in', async () => {
  const { draw, set } = await startRouter([one('n1', '1')]);
  const wanted = [
    split,
    {
      name: 'p2',
      targets: [
        { model: 'nowhere', weight: 1 },
        { model: 'parked', weight: 0 },
      ],
    },
  ];
  const refused = await set(wanted).catch((error: StatusError) => error);
  expect(refused).toMatchObject({ code: Code.FAILED_PRECONDITION, reason: Reason.ROUTE_UNSERVED });
  expect((refused as StatusError).details.violations).toMatchObject([
    { field: 'routes[0].targets[1]', description: 'no node serves "fake@2"; there are the revisions 1' },
    { field: 'routes[1].targets[0]', description: 'no node serves "nowhere"; there are the models fake' },
  ]);
  await set(wanted, { force: true });
  const nodes = await Promise.all(Array.from({ length: 20 }, (_, i) => draw({ model: 'public', requestId: `r${i}` })));
  expect(new Set(nodes)).toEqual(new Set(['n1']));
  await expect(draw({ model: 'p2' })).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.NO_NODES });
});

test('a malformed change is refused with everything that is wrong; a late one is not lost but refused', async () => {
  const { set, channel } = await startRouter([one('n1', '1')]);
  const bad = [
    { name: 'a b', targets: [] },
    { name: 'r', targets: [{ model: 'nowhere', weight: 1 }] },
  ];
  await expect(set(bad)).rejects.toMatchObject({
    code: Code.INVALID_ARGUMENT,
    details: { violations: [{ field: 'routes[0].name' }, { field: 'routes[0].targets' }, { field: 'routes[1].targets[0]' }] },
  });
  await set([{ name: 'r', targets: [{ model: 'fake', weight: 3 }] }]);
  await expect(set([])).rejects.toMatchObject({ code: Code.ABORTED, reason: Reason.CHANGED_MEANWHILE });
  const { response } = await channel.unary(Admin.getRoutes, {});
  expect(response).toEqual({ revision: 1n, routes: [{ name: 'r', targets: [{ model: 'fake', revision: '', weight: 3 }] }] });
});

test('ListModels shows routes among the models, with what they lead to', async () => {
  const { set, channel } = await startRouter([one('n1', '1'), one('n2', '2')]);
  await set([
    {
      name: 'public',
      targets: [
        { model: 'fake', revision: '1', weight: 9 },
        { model: 'fake', revision: '2', weight: 1 },
      ],
    },
  ]);
  const { models } = (await channel.unary(Pictures.listModels, {})).response;
  expect(models).toMatchObject([
    { name: 'fake', revision: '2', nodes: 2, leadsTo: [] },
    { name: 'public', revision: '1', nodes: 2, leadsTo: ['fake@1', 'fake@2'] },
  ]);
});

test('ListModels counts each node once, however many targets of a route it serves', async () => {
  const { set, channel } = await startRouter([one('n1', '1'), one('n2', '2')]);
  const targets = ['1', ''].map((revision) => ({ model: 'fake', revision, weight: 1 }));
  await set([{ name: 'public', targets }]);
  const { models } = (await channel.unary(Pictures.listModels, {})).response;
  expect(models.at(-1)).toMatchObject({ name: 'public', nodes: 2, loadedNodes: 2 });
});

test('a target that is a route is told so', async () => {
  const { set } = await startRouter([one('n1', '1')]);
  const routes = [
    { name: 'public', targets: [{ model: 'fake', weight: 1 }] },
    { name: 'again', targets: [{ model: 'public', weight: 1 }] },
  ];
  await expect(set(routes)).rejects.toMatchObject({
    reason: Reason.ROUTE_UNSERVED,
    message: expect.stringContaining('"public" is a route; targets are models, not routes'),
  });
});

test('a target whose nodes take no work leaves its callers to the others, and gets them back', async () => {
  const canary = one('n2', '2');
  const { draw, set, router } = await startRouter([one('n1', '1'), canary]);
  await set([split]);
  const ids = Array.from({ length: 20 }, (_, i) => `r${i}`);
  const drawAll = () => Promise.all(ids.map((requestId) => draw({ model: 'public', requestId })));
  const before = await drawAll();
  expect(new Set(before)).toEqual(new Set(['n1', 'n2']));
  canary.accepting = false;
  canary.announce();
  await expect.poll(() => router.fleet.takes('fake', '2')).toBe(false);
  expect(new Set(await drawAll())).toEqual(new Set(['n1']));
  canary.accepting = true;
  canary.announce();
  await expect.poll(() => router.fleet.takes('fake', '2')).toBe(true);
  expect(await drawAll()).toEqual(before);
});
