/** Slow nodes in a real router; what counts as slow is slow-nodes.test.ts. */
import { afterEach, expect, test } from 'vitest';
import { Reason } from '#core';
import { systemClock } from '#runtime';
import { FakeNode } from '../../test/support/fake-node.js';
import { cleanUp, startRouter, WORK } from '../../test/support/router-world.js';

afterEach(cleanUp);

/** Nodes that have drawn some pictures in 200 ms each, they say. */
async function startPaced(count: number) {
  const nodes = Array.from({ length: count }, (_, i) => new FakeNode(`n${i + 1}`));
  for (const node of nodes) {
    node.executingMs = 200;
    node.draw = () => systemClock.sleep(node.executingMs / 40);
  }
  const started = await startRouter(nodes, { breaker: { openMs: 200 } });
  const { router, generate } = started;
  await expect.poll(() => [...router.fleet].every((node) => node.link.connected)).toBe(true);
  for (const { nodeId } of nodes) for (let i = 0; i < 5; i++) router.cost.observe(nodeId, WORK, 200);
  const draw = (times: number) => Promise.all(Array.from({ length: times }, () => generate()));
  const breakerOf = (node: FakeNode) => router.fleet.get(node.nodeId)?.breaker;
  const told = (type: string) => started.events.filter((event) => event.type === type);
  const [sick] = nodes;
  if (!sick) throw new Error('a node');
  return { ...started, sick, nodes, draw, breakerOf, told };
}

test('a node that takes four times what it should is in quarantine; it draws canaries until one is in range', async () => {
  const { sick, draw, breakerOf, told, generate } = await startPaced(3);
  sick.executingMs = 800;
  for (let i = 0; i < 20 && breakerOf(sick)?.state === 'closed'; i++) await draw(20);
  expect(breakerOf(sick)?.cause).toBe('tooSlow');
  expect(told('breakerOpened')[0]).toMatchObject({ node: 'n1', cause: 'tooSlow', detail: expect.stringMatching(/takes \d\.\d times/) });
  await expect.poll(() => told('canaryEnded').length, { timeout: 5000 }).toBeGreaterThanOrEqual(2);
  expect(told('canaryEnded')[0]).toMatchObject({ ok: false, reason: Reason.EXECUTION_TIMEOUT });
  expect(breakerOf(sick)?.cause).toBe('tooSlow');
  const users = () => sick.started.filter((id) => !id.startsWith('canary'));
  const before = users().length;
  await Promise.all(Array.from({ length: 6 }, () => generate()));
  expect(users().length).toBe(before);
  sick.executingMs = 200;
  await expect.poll(() => breakerOf(sick)?.state, { timeout: 8000 }).toBe('closed');
  expect(breakerOf(sick)?.cause).toBeUndefined();
  await draw(3);
  expect(breakerOf(sick)?.state).toBe('closed');
});

test('a GPU that was never well is found by others of its name, with no history of its own', async () => {
  const nodes = ['n1', 'n2', 'n3'].map((id) => new FakeNode(id));
  for (const node of nodes) {
    node.gpu = { uuid: node.nodeId, name: 'H100', memoryTotalBytes: 80e9, memoryUsedBytes: 0, utilisationRatio: 1, temperatureCelsius: 60 };
    node.executingMs = node.nodeId === 'n3' ? 800 : 200;
    node.draw = () => systemClock.sleep(node.executingMs / 40);
  }
  const { router, generate } = await startRouter(nodes);
  await expect.poll(() => [...router.fleet].every((node) => node.link.connected)).toBe(true);
  const causes = () => [...router.fleet].map((node) => node.breaker.cause);
  for (let i = 0; i < 10 && causes()[2] === undefined; i++) await Promise.all(Array.from({ length: 20 }, () => generate()));
  expect(causes()).toEqual([undefined, undefined, 'tooSlow']);
});

test('one stall sends nobody away', async () => {
  const { sick, draw, breakerOf } = await startPaced(3);
  sick.executingMs = 4000;
  while (!sick.started.length) await draw(1);
  sick.executingMs = 200;
  await draw(12);
  expect(breakerOf(sick)?.state).toBe('closed');
});

test('a node that cannot be spared stays, however slow; that is told once', async () => {
  const { sick, router, draw, breakerOf, told } = await startPaced(2);
  const other = router.fleet.get('n2');
  other?.link.close();
  await expect.poll(() => other?.link.connected).toBe(false);
  sick.executingMs = 800;
  for (let i = 0; i < 8; i++) await draw(1);
  expect(breakerOf(sick)?.state).toBe('closed');
  expect(told('slowNodeKept')).toMatchObject([{ nodeId: 'n1' }]);
});
