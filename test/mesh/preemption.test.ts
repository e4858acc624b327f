/** A long picture gives its GPU to an urgent one and goes on after it, to the same bytes; nobody else notices. */
import { describe, expect, test } from 'vitest';
import type { MeshClient, PictureRequest, Progress } from '#client';
import { Code, Reason } from '#core';
import { scriptedPicture } from '../engines/scriptable/index.js';
import { pixelsOf } from '../support/picture-oracle.js';
import { type TestMesh, useMesh } from '../support/test-mesh.js';

const env = { node: { DMESH_NODE_PREEMPTION: 'short', DMESH_LOG_LEVEL: 'debug' } };
/** More than a second where the engine is scripted. */
const LONG = { prompt: '[step=50ms] a long one', steps: 24, width: 64, height: 64, seed: 11, priority: 'low' } as const;
const URGENT = { prompt: '[step=50ms] an urgent one', steps: 6, width: 64, height: 64, seed: 12, priority: 'high' } as const;

/** A picture in work; `steps` are those its caller was told. */
function begin(client: MeshClient, request: PictureRequest, timeoutMs?: number) {
  const steps: number[] = [];
  const cancel = new AbortController();
  let endedAt = Number.POSITIVE_INFINITY;
  const answer = client
    .generate(request, {
      signal: cancel.signal,
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
      onProgress: (progress: Progress) => {
        if (progress.kind === 'step') steps.push(progress.step);
      },
    })
    .finally(() => {
      endedAt = performance.now();
    });
  answer.catch(() => {}); // looked at by the test, if at all
  return {
    answer,
    steps,
    stepped: (count: number) => expect.poll(() => steps.length, { interval: 5, timeout: 15_000 }).toBeGreaterThanOrEqual(count),
    cancel: () => cancel.abort(),
    endedAt: () => endedAt,
  };
}

const pauseCount = async (mesh: TestMesh, nodeId = 'node-1') => (await mesh.figures(mesh.node(nodeId))).sum('dmesh_node_pauses_total');
/** The node on which a request is paused. */
const pausedOn = async (mesh: TestMesh) => (await mesh.client.listNodes()).find(({ pausedRequestId }) => pausedRequestId !== '');

/** One long picture under way and an urgent one that has begun in its place. */
async function paused(mesh: TestMesh, changes: { timeoutMs?: number; urgent?: PictureRequest } = {}) {
  const before = await pauseCount(mesh);
  const low = begin(mesh.client, LONG, changes.timeoutMs);
  await low.stepped(3);
  const high = begin(mesh.client, changes.urgent ?? URGENT);
  await high.stepped(1);
  expect(await pauseCount(mesh)).toBe(before + 1);
  return { low, high };
}

const asLine = (line: string): Record<string, unknown> => (line.startsWith('{') ? JSON.parse(line) : {});
/** Each time that a request left the engine of node-1. */
const departuresOf = (mesh: TestMesh, requestId: string) =>
  mesh
    .node('node-1')
    .lines.map(asLine)
    .filter(({ msg, request_id }) => msg === 'request left the engine' && request_id === requestId);
const reasonsOf = (mesh: TestMesh, requestId: string) => departuresOf(mesh, requestId).map(({ reason }) => reason);
const inOrder = (count: number) => Array.from({ length: count }, (_, i) => i + 1);

describe('the embedded model', () => {
  const mesh = useMesh({ nodes: 1, kind: 'onnx', env });

  test('a LOW picture that was paused for a HIGH one has the bytes of one that was not', async () => {
    const { client } = mesh();
    const long = { prompt: 'a red circle on a blue background', width: 256, height: 256, steps: 24, seed: 7, priority: 'low' } as const;
    const undisturbed = await client.generate(long);
    const low = begin(client, long);
    await low.stepped(5);
    const high = begin(client, { prompt: 'a small green star', width: 128, height: 128, seed: 8, priority: 'high' });
    await high.answer;
    await low.answer;
    expect(high.endedAt()).toBeLessThan(low.endedAt());
    expect(await pauseCount(mesh())).toBe(1);
    expect(low.steps).toEqual(inOrder(24));
    const [image] = (await low.answer).images;
    expect(Buffer.from(image?.data ?? []).equals(Buffer.from(undisturbed.images[0]?.data ?? [1]))).toBe(true);
  });
});

describe('one node', () => {
  const mesh = useMesh({ nodes: 1, env });

  test('operators see who is paused, and callers every step once', async () => {
    const { low, high } = await paused(mesh(), { urgent: { ...URGENT, prompt: '[step=150ms] a slow one', steps: 12 } });
    await expect.poll(async () => (await pausedOn(mesh()))?.nodeId, { timeout: 10_000 }).toBe('node-1');
    await high.answer;
    const { images, requestId } = await low.answer;
    expect(high.endedAt()).toBeLessThan(low.endedAt());
    expect(low.steps).toEqual(inOrder(LONG.steps));
    expect(await pixelsOf(images[0]?.data)).toEqual(scriptedPicture({ ...LONG, seed: BigInt(LONG.seed) }, false));
    // The pause is not held against anybody.
    await expect.poll(() => departuresOf(mesh(), requestId)).toHaveLength(1);
    expect(Number(departuresOf(mesh(), requestId)[0]?.took_ms)).toBeLessThan(LONG.steps * 50 + 1500); // the pause takes 1.8 s
    const figures = await mesh().figures(mesh().node('node-1'));
    expect(figures.by('dmesh_node_paused_seconds_total', 'class').low).toBeGreaterThan(0.4);
  });

  test('a HIGH picture is not paused for another', async () => {
    const before = await pauseCount(mesh());
    const first = begin(mesh().client, { ...URGENT, steps: 12 });
    await first.stepped(2);
    const second = begin(mesh().client, URGENT);
    await second.answer;
    expect(first.endedAt()).toBeLessThan(second.endedAt());
    expect(await pauseCount(mesh())).toBe(before);
  });

  test('a NORMAL picture pauses a much longer one, and waits for one that is not', async () => {
    const { client } = mesh();
    const long = { ...LONG, priority: 'normal' } as const;
    const small = { ...URGENT, steps: 2, priority: 'normal' } as const;
    for (const request of [long, small]) await client.generate(request); // routers know what they cost
    const before = await pauseCount(mesh());
    const first = begin(client, long);
    await first.stepped(3);
    const [equal, short] = [begin(client, long), begin(client, small)];
    await short.answer;
    await first.answer;
    expect(short.endedAt()).toBeLessThan(first.endedAt());
    expect(await pauseCount(mesh())).toBe(before + 1);
    equal.cancel();
  });

  test('cancelled while it is paused, it leaves at once and the urgent one is undisturbed', async () => {
    const { low, high } = await paused(mesh());
    low.cancel();
    await expect(low.answer).rejects.toMatchObject({ code: Code.CANCELLED });
    await high.answer;
    expect(high.steps).toEqual(inOrder(URGENT.steps));
    await mesh().client.generate(URGENT);
  });

  test('an urgent one that is cancelled gives the GPU back at once', async () => {
    const { low, high } = await paused(mesh());
    const stepCount = low.steps.length;
    high.cancel();
    await low.stepped(stepCount + 1);
    await low.answer;
    expect(low.steps).toEqual(inOrder(LONG.steps));
  });

  test('its deadline holds while it is paused', async () => {
    // As large as the other urgent ones, so predicted to be as quick.
    const { low, high } = await paused(mesh(), { timeoutMs: 2500, urgent: { ...URGENT, prompt: '[step=500ms] a slow one' } });
    await expect(low.answer).rejects.toMatchObject({ code: Code.DEADLINE_EXCEEDED });
    await high.answer;
    expect(high.steps).toEqual(inOrder(URGENT.steps));
  });

  test('a crash of the urgent one is not held against the one that made room for it', async () => {
    const { low, high } = await paused(mesh(), { urgent: { ...URGENT, prompt: '[step=50ms] [crash@4] a deadly one' } });
    await expect(high.answer).rejects.toMatchObject({ reason: Reason.ENGINE_CRASHED });
    const { images, requestId } = await low.answer;
    expect(await pixelsOf(images[0]?.data)).toEqual(scriptedPicture({ ...LONG, seed: BigInt(LONG.seed) }, false));
    await expect.poll(() => reasonsOf(mesh(), requestId)).toEqual([Reason.ENGINE_NOT_READY, 'OK']);
  });

  test('a drain waits for both', async () => {
    const { low, high } = await paused(mesh());
    await mesh().client.drain('node-1');
    await high.answer;
    await low.answer;
    await mesh().client.resume('node-1');
    await expect.poll(async () => (await mesh().info('node-1')).draining, { timeout: 5000 }).toBe(false);
  });
});

describe('two nodes', () => {
  const mesh = useMesh({ nodes: 2, env });

  test.each(['node', 'engine'] as const)('kill -9 of the %s while one is paused: both are drawn all the same', async (what) => {
    const { client } = mesh();
    const lows = [begin(client, LONG), begin(client, { ...LONG, seed: 21 })];
    for (const low of lows) await low.stepped(3);
    const high = begin(client, URGENT);
    await high.stepped(1);
    await expect.poll(async () => (await pausedOn(mesh()))?.nodeId, { timeout: 10_000 }).toBeDefined();
    const { nodeId = '' } = (await pausedOn(mesh())) ?? {};
    const victim = mesh().node(nodeId);
    if (what === 'node') victim.kill('SIGKILL');
    else process.kill(mesh().enginePid(nodeId), 'SIGKILL');
    for (const [i, { answer }] of [...lows, high].entries()) {
      const request = [LONG, { ...LONG, seed: 21 }, URGENT][i] ?? LONG;
      const { images } = await answer;
      expect(await pixelsOf(images[0]?.data)).toEqual(scriptedPicture({ ...request, seed: BigInt(request.seed) }, false));
    }
    if (what === 'node') {
      await victim.exited;
      await mesh().revive(victim);
    }
    await mesh().whole();
  });
});
