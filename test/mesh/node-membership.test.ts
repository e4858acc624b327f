/** One node as the mesh sees it over NATS: beats, roll call, control, services, leave. */
import path from 'node:path';
import { expect, test } from 'vitest';
import { type Beat, type Bus, callRoll, connectBus, sendControl } from '#bus';
import { Code, Reason } from '#core';
import { findNatsServer, type NatsServer, startNatsServer } from '#local-mesh';
import { packageRoot, systemClock, systemRandom } from '#runtime';
import { closeAll, type NodeProcess, startNode } from '../support/node-process.js';
import { useShared } from '../support/shared.js';

let nats: NatsServer;
let bus: Bus;
let node: NodeProcess;
const beats: Beat[] = [];
const leaves: unknown[] = [];
const last = () => beats.at(-1);

useShared(
  async () => {
    const { path: file } = await findNatsServer({ env: process.env, cacheDir: path.join(packageRoot, '.cache'), log: () => {} });
    nats = await startNatsServer({ path: file });
    bus = connectBus({ url: nats.url, name: 'test', clock: systemClock, random: systemRandom, emit: () => {} });
    beats.length = 0;
    leaves.length = 0;
    const parse = (data: Uint8Array) => JSON.parse(Buffer.from(data).toString());
    bus.subscribe('dmesh.v1.node.n1.beat', ({ data }) => beats.push(parse(data)));
    bus.subscribe('dmesh.v1.node.n1.leave', ({ data }) => leaves.push(parse(data)));
    node = await startNode({ env: { NATS_URL: nats.url, DMESH_NODE_ZONE: 'rack-7' } });
  },
  async () => {
    await closeAll();
    await bus?.close();
    await nats?.stop();
  },
);

test('a beat says where the node is, what it serves and that it is ready', async () => {
  await expect.poll(() => last()?.engine.state).toBe('ready');
  expect(last()).toMatchObject({
    nodeId: 'n1',
    address: node.child.grpc,
    zone: 'rack-7',
    engine: { name: 'scripted', determinismClass: 'scripted/1', restartCount: 0 },
    models: [{ name: 'scripted' }],
    slotCount: 1,
    busyCount: 0,
    running: [],
    draining: false,
    gpu: null,
  });
});

test('a running request is in the beat, with its progress, and gone after it', async () => {
  const call = node.generate({ prompt: '[step=50ms]', requestId: 'r-7', steps: 30 });
  await expect.poll(() => last()?.running).toMatchObject([{ requestId: 'r-7', total: 30 }]);
  expect(last()?.busyCount).toBe(1);
  await call;
  await expect.poll(() => last()).toMatchObject({ busyCount: 0, running: [], completedCount: 1, failedCount: 0 });
});

test('a roll call is answered at once', async () => {
  await expect.poll(() => last()?.busyCount).toBe(0);
  const before = beats.length;
  const askedAt = performance.now();
  callRoll(bus);
  await expect.poll(() => beats.length, { interval: 2 }).toBeGreaterThan(before);
  expect(performance.now() - askedAt).toBeLessThan(500);
});

test('drain and resume by control', async () => {
  expect(await sendControl({ bus, nodeId: 'n1', action: 'drain' })).toEqual({ ok: true });
  await expect.poll(() => last()?.draining).toBe(true);
  await expect(node.generate({})).rejects.toMatchObject({ code: Code.UNAVAILABLE, reason: Reason.DRAINING });
  expect(await sendControl({ bus, nodeId: 'n1', action: 'resume' })).toEqual({ ok: true });
  await node.generate({});
  expect(last()?.draining).toBe(false);
});

test('reload waits for the running request, then brings up a new engine', async () => {
  const call = node.generate({ prompt: '[step=30ms]' });
  await expect.poll(() => node.metric('dmesh_node_slot_busy')).toBe(1);
  expect(await sendControl({ bus, nodeId: 'n1', action: 'reload' })).toEqual({ ok: true });
  expect((await call).response.images).toHaveLength(1);
  await expect.poll(() => last()?.engine, { timeout: 10_000 }).toMatchObject({ state: 'ready', restartCount: 1 });
  await node.generate({});
});

test('it is on the list of NATS services', async () => {
  const info = JSON.parse(Buffer.from(await bus.request('$SRV.INFO.dmesh-node', '', 2000)).toString());
  expect(info).toMatchObject({ name: 'dmesh-node', metadata: { node_id: 'n1', grpc_addr: node.child.grpc } });
});

test('SIGTERM says goodbye', async () => {
  node.child.kill('SIGTERM');
  await node.child.exited;
  await expect.poll(() => leaves).toEqual([{ nodeId: 'n1', incarnation: last()?.incarnation }]);
});
