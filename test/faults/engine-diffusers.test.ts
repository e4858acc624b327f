/**
 * The tests of the mesh that matter most, with the engine on PyTorch: killed, frozen, cancelled, drained and joined late,
 * it costs nobody an answer or a byte. And a model of another family, through router and node.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { Code, Reason } from '#core';
import { diffusersEnv, diffusersFolder, diffusersPython, sayIfAbsent } from '../support/diffusers-engine.js';
import { modelDir } from '../support/model-folder.js';
import { useMesh } from '../support/test-mesh.js';

vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });

const NODE_COUNT = 2;
const REQUEST = { model: 'z-image-tiny', prompt: 'a red circle on a blue background', width: 64, height: 64, steps: 2 };
/** No step at 64² takes as long, not even on a machine that is busy with other things. */
const STEP_TIMEOUT = '8s';

describe.skipIf(sayIfAbsent('the mesh with engine-diffusers'))('a mesh with engine-diffusers', () => {
  const mesh = useMesh({
    nodes: NODE_COUNT,
    readyTimeoutMs: 120_000,
    env: {
      node: { ...diffusersEnv, DMESH_NODE_ENGINE: 'diffusers', DMESH_NODE_MODEL_DIR: modelDir, DMESH_NODE_STEP_TIMEOUT: STEP_TIMEOUT },
    },
  });
  let folder = '';
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'dmesh-other-family-'));
    await promisify(execFile)(diffusersPython, ['tests/tiny_folders.py', 'stable-diffusion', folder], {
      cwd: diffusersFolder,
      env: { ...process.env, ...diffusersEnv },
    });
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

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

  test('its engine frozen under load: killed when no step came, nobody is left without an answer, the same bytes', async () => {
    const before = await drawAll(seeds);
    const frozen = mesh().enginePid('node-2');
    const during = drawAll([...seeds, ...seeds]);
    process.kill(frozen, 'SIGSTOP');
    expect(await during).toEqual(before);
    await expect.poll(() => mesh().enginePid('node-2'), { timeout: 120_000, interval: 100 }).not.toBe(frozen);
    const isBack = async () => (await mesh().info('node-2')).engineState;
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

  test('a node that joins late draws the same bytes, and a model of another family beside them', async () => {
    const { client, local } = mesh();
    const before = await drawAll(seeds);
    const joining = local.addNode({ id: 'late', env: { DMESH_NODE_MODEL_DIR: [modelDir, folder].join(path.delimiter) } });
    expect(await drawAll([...seeds, ...seeds])).toEqual(before);
    const late = await joining;
    await local.waitForNodes(NODE_COUNT + 1);
    const { images } = await mesh()
      .connect(late.grpc)
      .generate({ ...REQUEST, seed: 3 });
    expect(digest(images[0]?.data)).toBe(before.get(3));

    const other = { ...REQUEST, model: 'stable-diffusion', prompt: 'a cat', negativePrompt: 'a dog', guidanceScale: 2, steps: 3 };
    const drawn = async (changes: object) => digest((await client.generate({ ...other, seed: 1, ...changes })).images[0]?.data);
    const bare = await drawn({});
    expect(await drawn({ loras: [{ name: 'mine', strength: 0 }] })).toBe(bare);
    expect(await drawn({ loras: [{ name: 'mine', strength: 1 }] })).not.toBe(bare);
    expect(await drawn({ seed: 2 })).not.toBe(bare);
    await expect(drawn({ prompt: 'abcdefgh '.repeat(60) })).rejects.toMatchObject({ reason: Reason.PROMPT_TOO_LONG });
    const leave = new AbortController();
    const call = client.generate(
      { ...other, width: 256, height: 256, steps: 50 },
      { signal: leave.signal, onProgress: ({ kind }) => kind === 'step' && leave.abort() },
    );
    await expect(call).rejects.toMatchObject({ code: Code.CANCELLED });
    expect(await drawn({})).toBe(bare);
    expect(await drawAll(seeds)).toEqual(before);
  });
});

function digest(data: Uint8Array | undefined): string {
  return createHash('sha256')
    .update(data ?? '')
    .digest('hex');
}
