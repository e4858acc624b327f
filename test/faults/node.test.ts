/** One node on its own, as a process, with an engine that fails on demand. */
import sharp from 'sharp';
import { afterEach, describe, expect, test } from 'vitest';
import { generation } from '#contracts';
import { Code, Reason } from '#core';
import { systemClock } from '#runtime';
import { scriptedPicture } from '../engines/scriptable/index.js';
import { closeAll, isRunning, type NodeProcess, type NodeStart, type RouterStream, startNode } from '../support/node-process.js';
import { useShared } from '../support/shared.js';

/** One node for all tests of a group: they leave it well, or fail. */
function useNode(options: NodeStart = {}): () => NodeProcess {
  let node: NodeProcess;
  useShared(async () => {
    node = await startNode(options);
  }, closeAll);
  return () => node;
}

const SIDE = 128;

async function pixels(image: generation.Image | undefined): Promise<Buffer> {
  return sharp(image?.data ?? new Uint8Array())
    .removeAlpha()
    .raw()
    .toBuffer();
}

const oracle = (prompt: string, seed: bigint) => scriptedPicture({ prompt, seed, width: SIDE, height: SIDE });

/** The slot is free when a request is drawn; also proves that the engine is well. */
async function drawsAgain(node: NodeProcess): Promise<void> {
  await expect
    .poll(() => node.generate({ prompt: 'again', seed: 2n }).catch((error) => error), { timeout: 20_000, interval: 20 })
    .toMatchObject({ response: { nodeId: 'n1' } });
}

describe('a calm day', () => {
  const shared = useNode();

  test('draws every picture asked for, each from its own seed, and says what was used', async () => {
    const node = shared();
    const { response, trailers } = await node.generate({ prompt: 'two', seed: 7n, imageCount: 2, requestId: 'r-1' });
    expect(response).toMatchObject({
      requestId: 'r-1',
      nodeId: 'n1',
      attempts: 1,
      used: { model: 'scripted', revision: '1', width: SIDE, height: SIDE, steps: 8, seed: 7n, determinismClass: 'scripted/1' },
    });
    expect(response.executingMs).toBeGreaterThan(60);
    expect(response.images.map(({ mimeType, seed }) => [mimeType, seed])).toEqual([
      ['image/png', 7n],
      ['image/png', 8n],
    ]);
    expect((await pixels(response.images[0])).equals(oracle('two', 7n))).toBe(true);
    expect((await pixels(response.images[1])).equals(oracle('two', 8n))).toBe(true);
    expect(trailers).toMatchObject({ 'x-mesh-node': 'n1', 'x-mesh-attempts': '1', 'x-mesh-queue-ms': '0' });
  });

  test('writes JPEG and WEBP when asked, and the same bytes for the same request', async () => {
    const node = shared();
    for (const [format, mimeType] of [
      [1, 'image/png'],
      [2, 'image/jpeg'],
      [3, 'image/webp'],
    ] as const) {
      const { response: first } = await node.generate({ format });
      const { response: second } = await node.generate({ format });
      expect(first.images[0]?.mimeType).toBe(mimeType);
      expect(Buffer.from(first.images[0]?.data ?? []).equals(Buffer.from(second.images[0]?.data ?? []))).toBe(true);
      expect(await sharp(first.images[0]?.data).metadata()).toMatchObject({ width: SIDE, height: SIDE });
    }
  });

  test('streams accepted, started, steps, the file in pieces of 256 KiB, completed', async () => {
    const node = shared();
    const kinds: string[] = [];
    const chunks: Buffer[] = [];
    const request = { prompt: 'large [noise]', width: 512, height: 512, steps: 3, requestId: 'r-2' };
    for await (const { event } of node.generateStream(request, { metadata: { 'x-mesh-attempt': '2' } })) {
      kinds.push(event?.$case ?? 'nothing');
      if (event?.$case === 'started') expect(event.value).toMatchObject({ nodeId: 'n1', attempt: 2 });
      if (event?.$case === 'completed') expect(event.value).toMatchObject({ requestId: 'r-2', attempts: 2, imageCount: 1 });
      if (event?.$case !== 'image') continue;
      expect(event.value.data.length).toBeLessThanOrEqual(256 * 1024);
      expect(event.value.offset).toBe(BigInt(chunks.reduce((sum, { length }) => sum + length, 0)));
      chunks.push(Buffer.from(event.value.data));
    }
    expect(kinds.slice(0, 5)).toEqual(['accepted', 'started', 'step', 'step', 'step']);
    expect(kinds.slice(5, -1).every((kind) => kind === 'image')).toBe(true);
    expect(kinds.length).toBeGreaterThan(7);
    expect(kinds.at(-1)).toBe('completed');
    const drawn = await sharp(Buffer.concat(chunks)).removeAlpha().raw().toBuffer();
    expect(drawn.equals(scriptedPicture({ prompt: request.prompt, seed: 1n, width: 512, height: 512 }, true))).toBe(true);
  });

  test('a seed that was not given is pinned and told', async () => {
    const node = shared();
    const [a, b] = [await node.generate({ seed: undefined }), await node.generate({ seed: undefined })];
    expect(a.response.used?.seed).toBe(a.response.images[0]?.seed);
    expect(a.response.used?.seed).not.toBe(b.response.used?.seed);
    expect(a.response.requestId).toMatch(/^r-[0-9a-f]{16}$/);
  });

  test('takes the request id of the call when the request has none', async () => {
    const node = shared();
    const { response } = await node.generate({}, { metadata: { 'x-request-id': 'from-the-router' } });
    expect(response.requestId).toBe('from-the-router');
    const line = () => node.lines('call ended').find(({ request_id }) => request_id === 'from-the-router');
    await expect.poll(line).toMatchObject({ node_id: 'n1', code: 'OK' });
  });

  test('one slot: who comes second is told to come back', async () => {
    const node = shared();
    const running = node.generate({ prompt: 'slow [step=150ms]' });
    await expect.poll(() => node.metric('dmesh_node_slot_busy')).toBe(1);
    await expect(node.generate({})).rejects.toMatchObject({ code: Code.RESOURCE_EXHAUSTED, reason: Reason.NODE_BUSY });
    await running;
  });
});

describe('bad input', () => {
  afterEach(closeAll);

  test('every violation at once, and what exists instead of what does not', async () => {
    const node = await startNode();
    await expect(node.generate({ prompt: '', width: 7, steps: 9999 })).rejects.toMatchObject({
      code: Code.INVALID_ARGUMENT,
      details: { violations: [{ field: 'prompt' }, { field: 'width' }, { field: 'steps' }] },
    });
    await expect(node.generate({ model: 'sdxl' })).rejects.toMatchObject({
      code: Code.NOT_FOUND,
      reason: Reason.UNKNOWN_MODEL,
      details: { resource: { type: 'model', name: 'sdxl', description: 'this node serves scripted' } },
    });
    await expect(node.generate({ loras: [{ name: 'sepia', strength: 1 }] })).rejects.toMatchObject({
      code: Code.NOT_FOUND,
      reason: Reason.UNKNOWN_LORA,
      details: { resource: { type: 'lora', description: 'scripted has neon' } },
    });
    await expect(node.generate({ prompt: 'word '.repeat(600) })).rejects.toMatchObject({
      code: Code.INVALID_ARGUMENT,
      reason: Reason.PROMPT_TOO_LONG,
    });
    expect(node.lines('engine in doubt, drawing a canary')).toEqual([]);
    await drawsAgain(node);
  });

  test('a bad configuration stops it with exit code 64, all faults listed', async () => {
    const env = { DMESH_NODE_LISTEN: 'nonsense', DMESH_NODE_GRANT_TTL: '30' };
    const gone = await startNode({ env }).catch((error: Error) => error);
    expect(String(gone)).toContain('exit code 64');
    for (const name of Object.keys(env)) expect(String(gone)).toContain(name);
  });
});

describe('a cancelled request', () => {
  const shared = useNode();

  /** Draws until a step is told, so that the engine is at work when the call is cancelled. */
  async function cancelAtStep(node: NodeProcess, prompt: string, step: number): Promise<{ cancelledAt: number }> {
    const cancel = new AbortController();
    let cancelledAt = Number.NaN;
    const call = (async () => {
      for await (const { event } of node.generateStream({ prompt, steps: 100 }, { signal: cancel.signal })) {
        if (event?.$case !== 'step' || event.value.step !== step) continue;
        cancelledAt = performance.now();
        cancel.abort();
      }
    })();
    await expect(call).rejects.toMatchObject({ code: Code.CANCELLED });
    return { cancelledAt };
  }

  /** The line that the node writes next; those of earlier tests, and of an earlier try, are passed over. */
  function nextTakenOff(node: NodeProcess): () => Promise<Record<string, unknown>> {
    const message = 'request taken off the engine';
    const pastCount = node.lines(message).length;
    return () => node.line(message, pastCount + 1);
  }

  test('a cancelled call frees the slot within one step', async () => {
    const node = shared();
    const takenOff = nextTakenOff(node);
    const { cancelledAt } = await cancelAtStep(node, '[step=400ms]', 2);
    await expect.poll(() => node.metric('dmesh_node_slot_busy'), { interval: 5 }).toBe(0);
    expect(performance.now() - cancelledAt).toBeLessThan(1000); // of 40 s; one step, and a busy machine
    expect(await takenOff()).toMatchObject({ killed: false });
    await node.generate({ steps: 1 });
  });

  test("the caller's deadline takes the work off the engine", async () => {
    const node = shared();
    const takenOff = nextTakenOff(node);
    const deadlineAt = performance.now() + 1000;
    await expect(node.generate({ prompt: '[step=50ms]', steps: 100 }, { deadlineAt })).rejects.toMatchObject({
      code: Code.DEADLINE_EXCEEDED,
    });
    expect(await takenOff()).toMatchObject({ killed: false });
    await drawsAgain(node);
  });

  test('a slow engine is waited for: the slot frees when it has really stopped', async () => {
    const node = shared();
    const takenOff = nextTakenOff(node);
    const engineCount = node.enginePids().length;
    await cancelAtStep(node, '[slow-cancel=1s] [step=50ms]', 1);
    await expect(node.generate({})).rejects.toMatchObject({ reason: Reason.NODE_BUSY });
    const line = await takenOff();
    expect(line).toMatchObject({ killed: false });
    expect(Number(line.took_ms)).toBeGreaterThan(900);
    await drawsAgain(node);
    expect(node.enginePids()).toHaveLength(engineCount);
  });
});

describe('an engine that does not keep its time', () => {
  afterEach(closeAll);

  test('an engine that does not stop within the grace is killed and replaced', async () => {
    const node = await startNode({ env: { DMESH_NODE_CANCEL_GRACE: '200ms' } });
    const cancel = new AbortController();
    const call = node.generate({ prompt: '[hang@2]' }, { signal: cancel.signal });
    await expect.poll(() => node.metric('dmesh_node_steps_total')).toBe(1);
    cancel.abort();
    await expect(call).rejects.toMatchObject({ code: Code.CANCELLED });
    expect(await node.line('request taken off the engine')).toMatchObject({ killed: true });
    await node.line('engine ready', 2);
    await drawsAgain(node);
    expect(await isRunning(node.enginePids()[0] ?? 0)).toBe(false);
  });

  test('a request that takes too long is EXECUTION_TIMEOUT with what was predicted and allowed', async () => {
    const limits = { DMESH_NODE_EXECUTION_FLOOR: '1s', DMESH_NODE_EXECUTION_CAP: '2s', DMESH_NODE_EXECUTION_FACTOR: '2' };
    const node = await startNode({ env: limits });
    for (let i = 0; i < 3; i++) await node.generate({});
    await expect(node.generate({ prompt: '[stuck@5]' })).rejects.toMatchObject({
      code: Code.DEADLINE_EXCEEDED,
      reason: Reason.EXECUTION_TIMEOUT,
      details: { metadata: { allowed_ms: '1000', predicted_ms: expect.stringMatching(/^\d+$/) } },
    });
    await drawsAgain(node);
    expect(node.enginePids()).toHaveLength(1);
  });

  test('an engine without progress is killed and the caller told at once', async () => {
    const node = await startNode({ env: { DMESH_NODE_STEP_TIMEOUT: '1s' } });
    await expect(node.generate({ prompt: '[hang@3]' })).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.ENGINE_STALLED });
    await node.line('engine ready', 2);
    await drawsAgain(node);
  });
});

describe('a dead engine', () => {
  const shared = useNode();

  test('that crashes is told at once and started again', async () => {
    const node = shared();
    const [lostCount, engineCount] = [node.lines('engine lost').length, node.enginePids().length];
    const calledAt = performance.now();
    await expect(node.generate({ prompt: '[crash@3]' })).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.ENGINE_CRASHED });
    expect(performance.now() - calledAt).toBeLessThan(3000);
    expect(await node.line('engine lost', lostCount + 1)).toMatchObject({ why: 'signal SIGKILL', failures: 1 });
    await drawsAgain(node);
    expect(node.enginePids()).toHaveLength(engineCount + 1);
    expect(await node.metric('dmesh_node_engine_starts_total')).toBe(engineCount + 1);
  });

  test('that died before the node could see it is not held against the request that came meanwhile', async () => {
    const node = shared();
    await drawsAgain(node);
    const readyCount = node.lines('engine ready').length;
    // As on a machine that stalls: death and request are there when the node looks again.
    node.child.kill('SIGSTOP');
    process.kill(node.enginePids().at(-1) ?? 0, 'SIGKILL');
    const answer = node.generate({});
    await systemClock.sleep(50); // the request is on its way; nobody can say when it is there
    node.child.kill('SIGCONT');
    await expect(answer).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.ENGINE_NOT_READY });
    await node.line('engine ready', readyCount + 1);
    await drawsAgain(node);
  });

  test('that is killed from outside while idle is started again', async () => {
    const node = shared();
    const [lostCount, readyCount] = [node.lines('engine lost').length, node.lines('engine ready').length];
    process.kill(node.enginePids().at(-1) ?? 0, 'SIGKILL');
    await node.line('engine lost', lostCount + 1);
    await node.line('engine ready', readyCount + 1);
    await drawsAgain(node);
  });
});

describe('a fault that the engine survives', () => {
  const shared = useNode();

  test.each([
    ['[oom@2]', Code.RESOURCE_EXHAUSTED, Reason.OUT_OF_MEMORY],
    ['[nan]', Code.INTERNAL, Reason.NAN_OUTPUT],
    ['[blank]', Code.INTERNAL, Reason.BLANK_OUTPUT],
    ['[garbage]', Code.DATA_LOSS, Reason.BAD_STREAM],
  ])('%s reaches the caller, and a canary passes before the next request', async (prompt, code, reason) => {
    const node = shared();
    const [canaryCount, engineCount] = [node.lines('canary passed').length, node.enginePids().length];
    await expect(node.generate({ prompt })).rejects.toMatchObject({ code, reason });
    await node.line('canary passed', canaryCount + 1);
    await drawsAgain(node);
    expect(node.enginePids()).toHaveLength(engineCount);
  });
});

describe('an engine that does not come up', () => {
  afterEach(closeAll);

  test('that draws another canary after a restart takes no work', async () => {
    const node = await startNode({ env: { SCRIPT_DRIFT_FROM_START: '2' } });
    await expect(node.generate({ prompt: '[crash@1]' })).rejects.toMatchObject({ reason: Reason.ENGINE_CRASHED });
    await node.line('canary failed: the picture differs');
    await expect(node.generate({})).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.ENGINE_NOT_READY });
    expect(await (await fetch(`http://${node.child.http}/readyz`)).json()).toEqual({
      ready: false,
      reason: expect.stringMatching(/^engine /),
    });
  });

  test('is started three times quickly, then ever slower', async () => {
    const env = { SCRIPT_FAILED_STARTS: '5', DMESH_NODE_RESTART_QUICK: '10ms', DMESH_NODE_RESTART_SLOW: '40ms' };
    const node = await startNode({ env });
    const delays = node.lines('engine lost').map((line) => Number(line.restart_in_ms));
    expect(delays.slice(0, 3)).toEqual([0, 10, 20]);
    expect(delays[3]).toBeGreaterThanOrEqual(32);
    expect(delays[3]).toBeLessThanOrEqual(48);
    expect(delays[4]).toBeGreaterThanOrEqual(64);
    expect(node.lines('engine lost').map((line) => line.why)).toEqual(Array(5).fill('exit code 3'));
    await drawsAgain(node);
  });

  test('a canary with another digest than the given one is never accepted', async () => {
    const node = await startNode({ env: { DMESH_NODE_CANARY_SHA256: '0'.repeat(64) }, waitForEngine: false });
    await node.line('canary failed: the picture differs');
    await expect(node.generate({})).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.ENGINE_NOT_READY });
  });

  test('a program that does not exist is reported and tried again', async () => {
    const node = await startNode({ env: { DMESH_NODE_ENGINE: '/no/such/engine' }, waitForEngine: false });
    expect(String((await node.line('engine lost')).why)).toContain('ENOENT');
    await expect(node.generate({})).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.ENGINE_NOT_READY });
  });
});

describe('life and death', () => {
  afterEach(closeAll);

  test('serves before its engine is ready, and says that it is not', async () => {
    const node = await startNode({ env: { SCRIPT_LOAD: '2s' }, waitForEngine: false });
    await expect(node.generate({})).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.ENGINE_NOT_READY });
  });

  test('a second node on the same slot refuses to start and says who holds it', async () => {
    const node = await startNode();
    const refused = await startNode({ dir: node.dir }).catch((error: Error) => error);
    expect(String(refused)).toContain('exit code 1');
    expect(String(refused)).toContain(`cpu-slot-n1 is owned by node n1, process ${node.child.pid}`);
    await drawsAgain(node);
  });

  test('a node that was killed leaves no engine and no lock behind', async () => {
    const node = await startNode();
    const [enginePid = 0] = node.enginePids();
    node.child.kill('SIGKILL');
    await node.child.exited;
    const next = await startNode({ dir: node.dir });
    await drawsAgain(next);
    await expect.poll(() => isRunning(enginePid), { timeout: 5000 }).toBe(false);
  });

  test('SIGTERM finishes what runs, refuses what comes, then ends with 0 and no engine', async () => {
    const node = await startNode();
    const router = node.attach('router-a');
    const running = node.generate({ prompt: 'slow [step=250ms]' });
    await expect.poll(() => node.metric('dmesh_node_slot_busy')).toBe(1);
    node.child.kill('SIGTERM');
    await node.line('draining');
    await expect(node.generate({})).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.DRAINING });
    await expect.poll(() => router.slots.at(-1)?.accepting).toBe(false);
    expect((await running).response.images).toHaveLength(1);
    expect(await node.child.exited).toEqual({ code: 0, signal: null });
    expect(await isRunning(node.enginePids()[0] ?? 0)).toBe(false);
  });

  test('SIGTERM while the engine hangs ends within the graces', async () => {
    const env = { DMESH_NODE_DRAIN_GRACE: '300ms', DMESH_NODE_ENGINE_STOP_GRACE: '300ms' };
    const node = await startNode({ env });
    const running = node.generate({ prompt: '[hang@2]' }).catch((error) => error);
    await expect.poll(() => node.metric('dmesh_node_steps_total')).toBe(1);
    node.child.kill('SIGTERM');
    expect(await running).toMatchObject({ code: Code.UNAVAILABLE });
    await node.child.exited;
    expect(await isRunning(node.enginePids()[0] ?? 0)).toBe(false);
  });
});

describe('bids and grants', () => {
  const shared = useNode();
  const streams: RouterStream[] = [];
  const attach = (routerId: string) => {
    const stream = shared().attach(routerId);
    streams.push(stream);
    return stream;
  };
  afterEach(async () => {
    for (const { duplex } of streams) duplex.end();
    await Promise.all(streams.splice(0).map(({ ended }) => ended));
  });

  test('slot state comes at once, and at every change', async () => {
    const node = shared();
    const router = attach('router-a');
    await expect.poll(() => router.slots.length).toBe(1);
    expect(router.slots[0]).toMatchObject({ slotCount: 1, busyCount: 0, accepting: true, nextFreeMs: 0 });
    await node.generate({});
    await expect.poll(() => router.slots.map(({ busyCount }) => busyCount)).toEqual(expect.arrayContaining([0, 1, 0]));
    await expect.poll(() => router.slots.at(-1)?.busyCount).toBe(0);
  });

  test('two routers: the older request gets the slot, then the other', async () => {
    const node = shared();
    const [a, b] = [attach('router-a'), attach('router-b')];
    const steps = await node.metric('dmesh_node_steps_total');
    const running = node.generate({ prompt: '[step=40ms]', steps: 24 });
    await expect.poll(() => node.metric('dmesh_node_steps_total'), { interval: 5 }).toBeGreaterThan(steps + 2);
    a.bid(1, 10);
    b.bid(1, 5000);
    await expect.poll(() => b.grants.length, { interval: 2 }).toBe(1);
    const leaseOf = (grant: { leaseId: bigint } | undefined) => ({ metadata: { 'x-mesh-lease': String(grant?.leaseId) } });
    const ofB = node.generate({ prompt: 'of b', seed: 3n }, leaseOf(b.grants[0]));
    await expect(node.generate({})).rejects.toMatchObject({ reason: Reason.NODE_BUSY });
    await running;
    expect((await pixels((await ofB).response.images[0])).equals(oracle('of b', 3n))).toBe(true);
    await expect.poll(() => a.grants.length, { interval: 2 }).toBe(1);
    expect(Number(a.grants[0]?.leaseId)).toBeGreaterThan(Number(b.grants[0]?.leaseId));
    a.decline(a.grants[0]?.leaseId ?? 0n);
    await drawsAgain(node);
  });

  test("the other routers hear what a router's request counts as", async () => {
    const node = shared();
    const [a, b] = [attach('router-a'), attach('router-b')];
    await expect.poll(() => a.slots.length + b.slots.length).toBe(2);
    const count = { 'x-mesh-router': 'router-a', 'x-mesh-tenant': 'studio', 'x-mesh-priority': 'low', 'x-mesh-cost-ms': '250' };
    await node.generate({}, { metadata: count });
    await expect.poll(() => b.served).toEqual([{ priority: generation.Priority.LOW, tenant: 'studio', costMs: 250, actedFor: false }]);
    await node.generate({}, { metadata: { ...count, 'x-mesh-cost-ms': 'NaN' } });
    expect([a.served.length, b.served.length]).toEqual([0, 1]);
  });

  test('a router that dies gives up its bid and its grant', async () => {
    const [a, b] = [attach('router-a'), attach('router-b')];
    await expect.poll(() => b.slots.length).toBe(1);
    a.bid(1, 5000);
    await expect.poll(() => a.grants.length).toBe(1);
    b.bid(1, 10);
    a.duplex.end();
    expect(await a.ended).toBeUndefined();
    await expect.poll(() => b.grants.length).toBe(1);
  });

  test('a router that attaches again replaces its earlier stream', async () => {
    const node = shared();
    const first = attach('router-a');
    await expect.poll(() => first.slots.length).toBe(1);
    const second = attach('router-a');
    expect(await first.ended).toMatchObject({ code: Code.ABORTED });
    await expect.poll(() => second.slots.length).toBe(1);
    expect(await node.metric('dmesh_node_routers')).toBe(1);
  });

  test('a stream that does not begin with Hello is refused', async () => {
    const nameless = attach('');
    expect(await nameless.ended).toMatchObject({ code: Code.INVALID_ARGUMENT });
  });
});
