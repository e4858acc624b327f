/** An urgent request does not wait until a silent node is found dead: an idle one draws the same picture. */
import { expect, test, vi } from 'vitest';
import type { Child } from '#local-mesh';
import { systemClock } from '#runtime';
import { only, useMesh } from '../support/test-mesh.js';

/** Without a second attempt nobody would notice sooner. */
const KEEPALIVE_MS = 10_000;
const PICTURE = { prompt: '[step=50ms] the same', seed: 7, width: 64, height: 64, steps: 10, priority: 'high' } as const;

const mesh = useMesh({ nodes: 2, env: { router: { DMESH_ROUTER_KEEPALIVE: `${KEEPALIVE_MS}ms` } } });

/** What an undisturbed mesh answers; both nodes are known to the router then. */
async function undisturbed(): Promise<Uint8Array> {
  const both = await Promise.all([mesh().client.generate(PICTURE), mesh().client.generate({ ...PICTURE, seed: 8 })]);
  return only(both[0].images[0]).data;
}

async function won(): Promise<number> {
  return (await mesh().figures()).by('dmesh_router_hedges_total', 'result').won ?? 0;
}

/** Freezes the node as long as `work` lasts. */
async function whileFrozen<T>(node: Child, work: () => Promise<T>): Promise<T> {
  node.kill('SIGSTOP');
  try {
    return await work();
  } finally {
    node.kill('SIGCONT');
  }
}

test('SIGSTOP of the node that draws for a streaming caller: the other node answers, the same bytes, steps never go back', async () => {
  const expected = await undisturbed();
  const before = await won();
  const steps: number[] = [];
  let nodeId = '';
  let onSecondStep = () => {};
  const secondStep = new Promise<void>((resolve) => {
    onSecondStep = resolve;
  });
  const answer = mesh().client.generate(PICTURE, {
    onProgress: (progress) => {
      if (progress.kind === 'started') nodeId = progress.nodeId;
      if (progress.kind === 'step') steps.push(progress.step);
      if (steps.length === 2) onSecondStep();
    },
  });
  await secondStep;
  await whileFrozen(mesh().node(nodeId), async () => {
    const frozenAt = systemClock.now();
    const { images, nodeId: drawnBy, attempts } = await answer;
    expect(systemClock.now() - frozenAt).toBeLessThan(KEEPALIVE_MS - 2000);
    expect(drawnBy).not.toBe(nodeId);
    expect(attempts).toBe(2);
    expect(Buffer.compare(only(images[0]).data, expected)).toBe(0);
  });
  expect(steps).toEqual(Array.from({ length: PICTURE.steps }, (_, i) => i + 1));
  expect(await won()).toBe(before + 1);
});

test('the same for a caller that waits for the answer in one piece', async () => {
  const expected = await undisturbed();
  const before = await won();
  const answer = mesh().client.generate(PICTURE);
  const busy = async () => (await mesh().client.listNodes()).find((node) => node.busyCount > 0)?.nodeId;
  const nodeId = await vi.waitFor(async () => only(await busy()), { interval: 10, timeout: 10_000 });
  await whileFrozen(mesh().node(nodeId), async () => {
    const frozenAt = systemClock.now();
    const { images, nodeId: drawnBy } = await answer;
    expect(systemClock.now() - frozenAt).toBeLessThan(KEEPALIVE_MS - 2000);
    expect(drawnBy).not.toBe(nodeId);
    expect(Buffer.compare(only(images[0]).data, expected)).toBe(0);
  });
  expect(await won()).toBe(before + 1);
});
