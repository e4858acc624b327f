import { afterEach, expect, test } from 'vitest';
import { generation } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import { type HandlersOf, Server } from '#grpc';
import { systemClock } from '#runtime';
import { Routers } from './routers.js';

const Pictures = generation.ImageGenerationServiceService;
const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function router(handlers: Partial<HandlersOf<typeof Pictures>>): Promise<string> {
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1024 * 1024 });
  const none = () => Promise.reject(new Error('not part of this test'));
  server.add(Pictures, { generate: none, generateStream: none, listModels: none, ...handlers } as HandlersOf<typeof Pictures>);
  const port = await server.listen('127.0.0.1:0');
  cleanups.push(() => server.close());
  return `127.0.0.1:${port}`;
}

function routersOf(addresses: () => readonly string[], token?: string): Routers {
  const routers = new Routers({ clock: systemClock, addresses, token: () => token });
  cleanups.push(() => routers.close());
  return routers;
}

const request = generation.GenerateRequest.fromPartial({ prompt: 'p' });
const forAcme = { tenant: 'acme', routeKey: 'uid-1', deadlineAt: Number.POSITIVE_INFINITY, signal: new AbortController().signal };
const completed: generation.GenerateEvent = { event: { $case: 'completed', value: generation.Completed.fromPartial({ nodeId: 'n' }) } };
async function draw(routers: Routers) {
  const events: generation.GenerateEvent[] = [];
  for await (const event of routers.draw(request, forAcme)) events.push(event);
  return events;
}

test('a picture is asked for in the name of its tenant', async () => {
  const seen: (string | undefined)[] = [];
  const address = await router({
    generateStream: async (call, out) => {
      seen.push(call.metadata['x-mesh-tenant'], call.metadata['x-mesh-route-key'], call.metadata.authorization);
      await out.write(completed);
    },
  });
  expect(await draw(routersOf(() => [address], 'dm_x'))).toEqual([completed]);
  expect(seen).toEqual(['acme', 'uid-1', 'Bearer dm_x']);
});

test('routers take turns; one that does not answer is passed over for a while', async () => {
  const counts = { a: 0, b: 0 };
  const counting = (name: 'a' | 'b') =>
    router({
      generateStream: async (_, out) => {
        counts[name]++;
        await out.write(completed);
      },
    });
  const addresses = [await counting('a'), await counting('b')];
  const routers = routersOf(() => addresses);
  for (let index = 0; index < 6; index++) await draw(routers);
  expect(counts).toEqual({ a: 3, b: 3 });
  addresses.push('127.0.0.1:1');
  const outcomes = [];
  for (let index = 0; index < 6; index++)
    outcomes.push(
      await draw(routers).then(
        () => 'drawn',
        (error) => error.reason,
      ),
    );
  expect(outcomes.filter((outcome) => outcome === Reason.CONNECT_FAILED)).toHaveLength(1);
});

test('without any router nothing is asked', async () => {
  const routers = routersOf(() => []);
  await expect(draw(routers)).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.CONNECT_FAILED });
  await expect(routers.models()).rejects.toMatchObject({ reason: Reason.CONNECT_FAILED });
});

test('what can be asked for is asked of any of them', async () => {
  const address = await router({ listModels: async () => ({ models: [generation.Model.fromPartial({ name: 'm' })] }) });
  expect((await routersOf(() => [address]).models()).map(({ name }) => name)).toEqual(['m']);
});

test('what the router answers is thrown as it is', async () => {
  const address = await router({
    generateStream: () => {
      throw new StatusError({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.QUEUE_FULL, message: 'full', retryDelayMs: 700 });
    },
  });
  await expect(draw(routersOf(() => [address]))).rejects.toMatchObject({ reason: Reason.QUEUE_FULL, details: { retryDelayMs: 700 } });
});
