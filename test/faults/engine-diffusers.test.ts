/** The tests of the mesh that matter most, with the engine on PyTorch: killed, cancelled, drained, it costs nobody an answer or a byte. */
import { createHash } from 'node:crypto';
import { describe, expect, test, vi } from 'vitest';
import { Code } from '#core';
import { diffusersEnv, sayIfAbsent } from '../support/diffusers-engine.js';
import { modelDir } from '../support/model-folder.js';
import { useMesh } from '../support/test-mesh.js';

vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });

const NODE_COUNT = 2;
const REQUEST = { prompt: 'a red circle on a blue background', width: 64, height: 64, steps: 2 };

describe.skipIf(sayIfAbsent('the mesh with engine-diffusers'))('a mesh with engine-diffusers', () => {
  const mesh = useMesh({
    nodes: NODE_COUNT,
    readyTimeoutMs: 120_000,
    env: { node: { ...diffusersEnv, DMESH_NODE_ENGINE: 'diffusers', DMESH_NODE_MODEL_DIR: modelDir } },
  });

  /** Digests by seed; every caller must get an answer. */
  const drawAll = async (seeds: readonly number[]): Promise<Map<number, string>> => {
    const results = await Promise.all(seeds.map((seed) => mesh().client.generate({ ...REQUEST, seed })));
    return new Map(results.map(({ images }, i) => [seeds[i] ?? 0, digest(images[0]?.data)]));
  };
  const seeds = Array.from({ length: 24 }, (_, i) => i % 8);

  test('its engine killed with kill -9 under load: no caller error, the same bytes from every node and every life', async () => {
    const before = await drawAll(seeds);
    const during = drawAll([...seeds, ...seeds]);
    process.kill(mesh().enginePid('node-1'), 'SIGKILL');
    expect(await during).toEqual(before);
    const isBack = async () => (await mesh().info('node-1')).engineState;
    await expect.poll(isBack, { timeout: 120_000, interval: 100 }).toBe('ready');
    expect(await drawAll(seeds)).toEqual(before);
  });

  test('a cancelled picture is off the engine, which lives on', async () => {
    const pids = mesh().nodes.map(({ id }) => mesh().enginePid(id));
    const leave = new AbortController();
    const call = mesh().client.generate(
      { ...REQUEST, width: 256, height: 256, steps: 50, seed: 1 },
      { signal: leave.signal, onProgress: ({ kind }) => kind === 'step' && leave.abort() },
    );
    await expect(call).rejects.toMatchObject({ code: Code.CANCELLED });
    await mesh().quiet();
    await drawAll([1, 2]);
    expect(mesh().nodes.map(({ id }) => mesh().enginePid(id))).toEqual(pids);
  });

  test('a node drained under load finishes what it draws; resumed, it works again', async () => {
    const { client } = mesh();
    const during = drawAll([...seeds, ...seeds]);
    await client.drain('node-2');
    await during;
    await expect.poll(async () => (await mesh().figures(mesh().node('node-2'))).sum('dmesh_node_slot_busy')).toBe(0);
    await client.resume('node-2');
    await mesh().whole();
    await drawAll(seeds);
  });
});

function digest(data: Uint8Array | undefined): string {
  return createHash('sha256')
    .update(data ?? '')
    .digest('hex');
}
