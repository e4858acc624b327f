import { afterEach, expect, test } from 'vitest';
import type { MeshSnapshot } from '#client';
import { admin, generation } from '#contracts';
import { Code, StatusError } from '#core';
import { type HandlersOf, Server } from '#grpc';
import { systemClock } from '#runtime';
import { runDmesh } from '../../test/support/run-dmesh.js';
import { clip } from './table.js';
import { ansiPaint, noPaint } from './terminal.js';
import { fitted, frame } from './top-view.js';

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

type WatchMesh = HandlersOf<typeof admin.MeshAdminServiceService>['watchMesh'];

async function router(watchMesh: WatchMesh): Promise<string> {
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20 });
  const none = () => Promise.reject(new Error('not part of this test'));
  const others = Object.fromEntries(Object.keys(admin.MeshAdminServiceService).map((name) => [name, none]));
  server.add(admin.MeshAdminServiceService, { ...others, watchMesh } as HandlersOf<typeof admin.MeshAdminServiceService>);
  cleanups.push(() => server.close());
  return `127.0.0.1:${await server.listen('127.0.0.1:0')}`;
}

const node = {
  nodeId: 'node-1',
  liveness: admin.Liveness.ALIVE,
  breaker: admin.BreakerState.OPEN,
  connected: true,
  engineState: 'ready',
  slotCount: 1,
  busyCount: 1,
  runningRequestId: 'r-1',
  runningStep: 4,
  runningTotal: 8,
  costRatio: 1.25,
};
const snapshot: MeshSnapshot = admin.MeshSnapshot.fromPartial({
  nodes: [node],
  queuedCount: 7,
  runningCount: 1,
  classes: [
    { priority: generation.Priority.HIGH, queuedCount: 3, queuedGpuSeconds: 4.5 },
    { priority: generation.Priority.LOW, queuedCount: 4, queuedGpuSeconds: 6 },
  ],
  tenants: [{ tenant: 'shop\u001b[2J', queuedCount: 7, queuedGpuSeconds: 10.5 }],
  otherTenants: { tenantCount: 5, queuedCount: 9, queuedGpuSeconds: 1 },
  rates: { answersPerSecond: 2.34, errorsPerSecond: 0.5, gpuSecondsPerSecond: 0.87 },
});
const view = { address: 'router:1', paint: noPaint };

function dmesh(args: readonly string[], options: { screen?: boolean; onOut?: (out: string, stop: AbortController) => void } = {}) {
  const stop = new AbortController();
  const terminal = options.screen ? { screen: () => ({ columnCount: 100, rowCount: 30 }) } : {};
  return runDmesh(args, { signal: stop.signal, terminal, onOut: (out) => options.onOut?.(out, stop) });
}

const untilAborted = (signal: AbortSignal) =>
  new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason));
  });

test('the view says that a request is paused beside the running one', () => {
  const nodes = [admin.NodeInfo.fromPartial({ ...node, pausedRequestId: 'r-0' })];
  expect(frame({ ...snapshot, nodes }, view).join('\n')).toContain('4/8 +1 paused');
});

test('a frame shows nodes with their step, the queue by class and tenant, and rates', () => {
  const text = frame(snapshot, view).join('\n');
  expect(text).toMatch(/1 nodes, 1 of 1 slots busy · 7 queued, 1 running/);
  expect(text).toMatch(/2\.3 answers\/s · 0\.5 errors\/s · 0\.87 GPU s\/s/);
  expect(text).toMatch(/node-1 +alive +open +ready +1\/1 +█████░░░░░ 4\/8 +×1\.25/);
  expect(text).toMatch(/high +3 +4\.5 .*\nlow +4 +6\.0 +5 others +9 +1\.0/);
});

test('what a caller wrote as its tenant cannot move the cursor', () => {
  const text = frame(snapshot, view).join('\n');
  expect(text).toContain('shop?[2J');
  expect(text).not.toContain('\u001b');
});

test.each([
  [40, 12],
  [100, 15],
  [20, 5],
])('a mesh of 100 nodes fits a screen of %i × %i', (columnCount, rowCount) => {
  const many = {
    ...snapshot,
    nodes: Array.from({ length: 100 }, (_, i) => ({ ...admin.NodeInfo.fromPartial(node), nodeId: `node-${i}` })),
  };
  const lines = fitted(many, view, { columnCount, rowCount });
  expect(lines.length).toBeLessThanOrEqual(rowCount);
  for (const line of lines) expect(line.length).toBeLessThanOrEqual(columnCount);
  if (rowCount > 10) expect(lines.join('\n')).toMatch(/… and \d+ more/);
});

test('clip() counts what is seen and ends the colour it cuts', () => {
  expect(clip(`${ansiPaint('red', '红色圆')}x`, 5)).toBe('\u001b[31m红色\u001b[0m');
  expect(clip('short', 5)).toBe('short');
});

test('top --once prints one plain snapshot, with --json every field', async () => {
  const address = await router(async (call, out) => {
    await out.write(snapshot);
    await untilAborted(call.signal);
  });
  const plain = await dmesh(['top', '--once', '--router', address], { screen: true });
  expect(plain).toEqual({ code: 0, err: '', out: `${frame(snapshot, { ...view, address }).join('\n')}\n` });
  const json = await dmesh(['top', '--once', '--json', '--router', address]);
  expect(JSON.parse(json.out)).toMatchObject({ queuedCount: 7, classes: [{ priority: 'PRIORITY_HIGH', queuedCount: 3 }, {}] });
});

test('top draws on the whole screen and gives the terminal back on Ctrl-C', async () => {
  const address = await router(async (call, out) => {
    await out.write(snapshot);
    await untilAborted(call.signal);
  });
  const ran = await dmesh(['top', '--router', address], {
    screen: true,
    onOut: (out, stop) => void (out.split('4/8').length > 2 && stop.abort()),
  });
  expect(ran).toMatchObject({ code: 0, err: '' });
  expect(ran.out.startsWith('\u001b[?1049h\u001b[?25l')).toBe(true);
  expect(ran.out.endsWith('\u001b[?25h\u001b[?1049l')).toBe(true);
});

test('top waits for a router that went away, and shows it again', async () => {
  let calls = 0;
  const address = await router(async (call, out) => {
    calls++;
    if (calls <= 2) await out.write(snapshot);
    if (calls === 2) throw new StatusError({ code: Code.UNAVAILABLE, reason: 'DRAINING', message: 'stopping' });
    if (calls >= 3) await out.write({ ...snapshot, runningCount: 42 });
    await untilAborted(call.signal);
  });
  const ran = await dmesh(['top', '--router', address], {
    screen: true,
    onOut: (out, stop) => void (out.includes('42 running') && stop.abort()),
  });
  expect(ran.code).toBe(0);
  expect(ran.out).toContain('the router is away (DRAINING); asking again');
});

test('top without a router says so and leaves the terminal alone', async () => {
  const ran = await dmesh(['top', '--router', '127.0.0.1:1'], { screen: true });
  expect(ran).toMatchObject({ code: 3, out: '' });
  expect(ran.err).toContain('CONNECT_FAILED');
});
