/** A router holds no truth of its own: a new one knows the mesh at once, and its callers lose only what was in flight. */
import { afterEach, expect, test } from 'vitest';
import { Code, Reason } from '#core';
import type { Child } from '#local-mesh';
import { byNode, failures, Load } from '../support/load.js';
import { wrongPictures } from '../support/picture-oracle.js';
import { useMesh } from '../support/test-mesh.js';

const mesh = useMesh({ nodes: 3, env: { node: { SCRIPT_STEP: '5ms' } } });

/** Routers a test added are gone after it. */
afterEach(async () => {
  const [, ...added] = mesh().local.routers.filter((router) => router.running);
  for (const router of added) await router.stop(5000);
});

test('a router restarted by SIGTERM under load: what was in flight is finished, callers see no error', async () => {
  const load = new Load(mesh().client, { callers: 12 });
  await load.more(20);
  const { router } = mesh();
  expect(await router.stop(20_000)).toEqual({ code: 0, signal: null });
  await mesh().revive(router);
  await load.more(20);
  const outcomes = await load.stop();
  expect(failures(outcomes)).toEqual({});
  expect(await wrongPictures(outcomes)).toEqual([]);
});

test('a router killed with kill -9: only calls in flight fail, all as UNAVAILABLE, and no node stays busy for them', async () => {
  const load = new Load(mesh().client, { callers: 12 });
  await load.more(20);
  const { router } = mesh();
  const inFlight = load.inFlight;
  router.kill('SIGKILL');
  await router.exited;
  await mesh().revive(router);
  const before = load.outcomes.length;
  await load.more(40);
  const outcomes = await load.stop();
  const failed = outcomes.filter((outcome) => !outcome.ok);
  expect(failed.map(({ error }) => error.code).filter((code) => code !== Code.UNAVAILABLE)).toEqual([]);
  expect(failed.map(({ error }) => error.reason).filter((reason) => reason !== Reason.CONNECTION_LOST)).toEqual([]);
  expect(failed.length).toBeLessThanOrEqual(inFlight);
  expect(failures(outcomes.slice(before + inFlight))).toEqual({});
  expect(await wrongPictures(outcomes)).toEqual([]);
});

test('a router that starts late knows all nodes at once, and draws at once', async () => {
  const late = await mesh().local.addRouter();
  const { attempts } = await mesh().connect(late.grpc).generate({ prompt: 'at once', seed: 1, width: 64, height: 64 });
  expect(attempts).toBe(1);
  await expect.poll(() => logTimes(late, 'node found')).toHaveLength(3);
  const [readyAt = 0] = logTimes(late, 'ready');
  const knownMs = Math.max(...logTimes(late, 'node found')) - readyAt;
  process.stdout.write(`a late router knew all nodes ${knownMs} ms after it was ready\n`);
  // Within 200 ms where nothing else runs: bench:membership.
  expect(knownMs).toBeLessThanOrEqual(1000);
});

/** Epoch milliseconds of the lines with this message. */
function logTimes(process: Child, message: string): number[] {
  const lines = process.lines.filter((line) => line.includes(`"msg":"${message}"`));
  return lines.map((line) => Date.parse(JSON.parse(line).time));
}

test('two routers on the same nodes: no caller hears NODE_BUSY, and the sums are right', async () => {
  const second = await mesh().local.addRouter();
  await mesh().local.waitForNodes(3, { router: second });
  const [first] = mesh().local.routers.filter((router) => router.running);
  const count = 120;
  const sums = async () => {
    const figures = await Promise.all([first, second].map((router) => mesh().figures(router)));
    return figures.map(
      (f) =>
        f.sum('dmesh_grpc_requests_total', { method: GENERATE, code: 'OK' }) +
        f.sum('dmesh_grpc_requests_total', { method: GENERATE_STREAM, code: 'OK' }),
    );
  };
  const drawnBy = async () => {
    const figures = await Promise.all(mesh().nodes.map((node) => mesh().figures(node)));
    return figures.reduce((sum, f) => sum + f.sum('dmesh_node_draws_total', { reason: 'OK' }), 0);
  };
  const [answeredBefore, drawnBefore] = [await sums(), await drawnBy()];
  const loads = [mesh().client, mesh().connect(second.grpc)].map(
    (client, i) => new Load(client, { callers: 40, count, firstSeed: i * 1000 }),
  );
  const outcomes = (await Promise.all(loads.map((load) => load.finished()))).flat();

  expect(failures(outcomes)).toEqual({});
  expect(await wrongPictures(outcomes)).toEqual([]);
  const answered = (await sums()).map((sum, i) => sum - (answeredBefore[i] ?? 0));
  expect(answered).toEqual([count, count]);
  expect((await drawnBy()) - drawnBefore).toBe(2 * count);
  expect(Object.values(byNode(outcomes)).reduce((a, b) => a + b, 0)).toBe(2 * count);
});

test('two routers: who came first is served first, whichever router holds the request', async () => {
  const second = await mesh().local.addRouter();
  await mesh().local.waitForNodes(3, { router: second });
  const clients = [mesh().client, mesh().connect(second.grpc)];
  // Who is due first is predicted: both routers have to know how long such a picture takes.
  const work = { steps: 16 };
  for (const client of clients) await new Load(client, { callers: 6, count: 18, firstSeed: 5000, request: work }).finished();
  const waves: Load[] = [];
  const size = 30;
  for (let wave = 0; wave < 4; wave++) {
    const client = clients[wave % 2];
    if (!client) continue;
    // Later than the wave before by more than a message ever takes, but long before that one is served.
    await waves[0]?.more(8);
    waves.push(new Load(client, { callers: size, count: size, firstSeed: wave * 100, request: work }));
  }
  const ends = await Promise.all(waves.map(async (load) => (await load.finished()).map((outcome) => outcome.endedAt)));
  let pairs = 0;
  let inOrder = 0;
  for (const [i, earlier] of ends.entries()) {
    for (const later of ends.slice(i + 1)) {
      for (const a of earlier) for (const b of later) inOrder += a < b ? 1 : 0;
      pairs += earlier.length * later.length;
    }
  }
  process.stdout.write(`two routers: ${((100 * inOrder) / pairs).toFixed(1)} % of pairs served in order of arrival\n`);
  expect(inOrder / pairs).toBeGreaterThan(0.9);
});

test('one of two routers killed with kill -9: the other one serves on, and what the dead one held is free', async () => {
  const second = await mesh().local.addRouter();
  await mesh().local.waitForNodes(3, { router: second });
  const load = new Load(mesh().client, { callers: 8 });
  const doomed = new Load(mesh().connect(second.grpc), { callers: 8, firstSeed: 10_000, timeoutMs: 10_000 });
  await Promise.all([load.more(20), doomed.more(20)]);
  second.kill('SIGKILL');
  await second.exited;
  const lost = (await doomed.stop()).filter((outcome) => !outcome.ok).map(({ error }) => error.code);
  expect(new Set(lost)).toEqual(new Set([Code.UNAVAILABLE]));
  await load.more(40);
  const outcomes = await load.stop();
  expect(failures(outcomes)).toEqual({});
  expect(await wrongPictures(outcomes)).toEqual([]);
  for (const node of mesh().nodes) expect((await mesh().figures(node)).sum('dmesh_node_routers')).toBe(1);
});

const GENERATE = '/diffusionmesh.v1.ImageGenerationService/Generate';
const GENERATE_STREAM = '/diffusionmesh.v1.ImageGenerationService/GenerateStream';
