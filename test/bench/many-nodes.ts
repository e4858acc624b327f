/**
 * What does the one order cost in a large mesh? Four real routers and a thousand nodes (real ports, slots
 * and Attach streams, pictures that only take time) under Poisson arrivals at 105 % load, so that
 * requests wait and every slot is bid for. Counted: messages for each request, time from a node's grant to
 * the call that uses it, and for how long a router's event loop was ever blocked.
 *
 * Where a thousand nodes share two cores with the routers, the clock shows mostly who waited for a core. So the
 * time of a grant stands beside that of a ping on the same way, and the length of a turn is told as CPU time.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { connectMesh } from '#client';
import { LocalMesh } from '#local-mesh';
import { systemClock, systemRandom } from '#runtime';
import { readFigures } from '../support/metrics.js';
import type { SwarmCounts } from './many-nodes-swarm.js';
import { ASKABLE, askInside } from './support/ask-inside.js';
import { cpuMs } from './support/cpu.js';
import type { Inside } from './support/inside.js';
import { finish, printTable, quantile, rounded } from './support/report.js';

const NODES = 1000;
const SWARMS = 2;
const ROUTERS = 4;
const PICTURE_MS = 20_000;
const LOAD = 1.05;
const WARM_UP_MS = 1.5 * PICTURE_MS;
const MEASURED_MS = 30_000;

// One process plays five hundred nodes and is late with their pings, which no node of its own would be.
const router = { DMESH_LOG_LEVEL: 'warn', DMESH_ROUTER_KEEPALIVE: '20s', ...ASKABLE };
const picture = { prompt: 'x', width: 128, height: 128, steps: 8 };
const swarms: ChildProcess[] = [];
const mesh = await LocalMesh.start({ nodes: 0, routerCount: ROUTERS, env: { router } });
try {
  for (let i = 0; i < SWARMS; i++) {
    const routers = mesh.routers.map(({ id, grpc }) => `${id}=${grpc}`);
    const args = [mesh.natsUrl, `swarm-${i}`, String(NODES / SWARMS), String(PICTURE_MS), ...routers];
    swarms.push(fork(path.join(import.meta.dirname, 'many-nodes-swarm.js'), args));
  }
  await Promise.all(swarms.map((swarm) => once(swarm, 'message')));
  for (const router of mesh.routers) await mesh.waitForNodes(NODES, { router });
  const clients = mesh.routers.map(({ grpc }) => connectMesh({ address: grpc }));

  const load = new AbortController();
  const answers: Promise<number>[] = [];
  const failures: string[] = [];
  const arrivals = (async () => {
    const startedAt = performance.now();
    const meanGapMs = PICTURE_MS / NODES / LOAD;
    for (let atMs = 0, i = 0; !load.signal.aborted; i++) {
      atMs += -Math.log(1 - systemRandom()) * meanGapMs;
      const waitMs = startedAt + atMs - performance.now();
      if (waitMs > 0) await systemClock.sleep(waitMs);
      const askedAt = performance.now();
      const asked = clients[i % clients.length]?.generate(picture, { timeoutMs: 300_000 });
      if (!asked) throw new Error('expected a client');
      answers.push(
        asked.then(
          () => performance.now() - askedAt,
          (error: Error) => {
            failures.push(error.message);
            return Number.NaN;
          },
        ),
      );
    }
  })();
  await systemClock.sleep(WARM_UP_MS);
  const before = await Promise.all(swarms.map(countsOf));
  await Promise.all(mesh.routers.map(askInside));
  const cpuBeforeMs = mesh.routers.map(({ pid }) => cpuMs([pid]));
  await systemClock.sleep(MEASURED_MS / 2);
  await Promise.all(mesh.routers.map(({ http }) => readFigures(http).catch(() => {}))); // a look of Prometheus is among the turns
  await systemClock.sleep(MEASURED_MS / 2);
  const after = await Promise.all(swarms.map(countsOf));
  const cpuUsedMs = mesh.routers.map(({ pid }, i) => cpuMs([pid]) - (cpuBeforeMs[i] ?? 0));
  const insides = await Promise.all(mesh.routers.map(askInside));
  load.abort();
  await arrivals;
  const tookMs = (await Promise.all(answers)).filter((each) => !Number.isNaN(each));
  for (const client of clients) client.close();

  const sum = (of: (counts: SwarmCounts) => number) =>
    after.reduce((total, counts, i) => total + of(counts) - of(before[i] as SwarmCounts), 0);
  const calls = sum(({ calls }) => calls);
  const perRequest = (count: number) => rounded(count / calls);
  const grants = after.flatMap((counts, i) => counts.grantsUsed.slice(before[i]?.grantsUsed.length));
  const grantToCallMs = grants.map(({ tookMs }) => tookMs);
  const longest = (of: (inside: Inside) => number) => rounded(Math.max(...insides.map(of)));
  const figures = {
    nodes: NODES,
    routers: ROUTERS,
    requestsPerSec: rounded((1000 * calls) / MEASURED_MS),
    bidsPerRequest: perRequest(sum(({ bids }) => bids)),
    grantsPerRequest: perRequest(sum(({ grants }) => grants)),
    declinesPerRequest: perRequest(sum(({ declines }) => declines)),
    refusedPerRequest: perRequest(sum(({ refused }) => refused)),
    grantToCallP50Ms: rounded(quantile(grantToCallMs, 0.5)),
    grantToCallP99Ms: rounded(quantile(grantToCallMs, 0.99)),
    pingP50Ms: rounded(
      quantile(
        grants.map(({ pingMs }) => pingMs),
        0.5,
      ),
    ),
    beyondPingP50Ms: rounded(
      quantile(
        grants.map(({ tookMs, pingMs }) => tookMs - pingMs),
        0.5,
      ),
    ),
    turnCpuP99Ms: longest(({ turnCpuP99Ms }) => turnCpuP99Ms),
    calmTurnCpuMaxMs: longest(({ calmTurnCpuMaxMs }) => calmTurnCpuMaxMs),
    turnCpuMaxMs: longest(({ turnCpuMaxMs }) => turnCpuMaxMs),
    turnWallMaxMs: longest(({ turnWallMaxMs }) => turnWallMaxMs),
    starvedRatio: longest(({ starvedRatio }) => starvedRatio),
    cpuPerRouterRatio: rounded(Math.max(...cpuUsedMs) / MEASURED_MS),
    meanS: rounded(tookMs.reduce((total, each) => total + each, 0) / tookMs.length / 1000),
    failures: failures.length,
  };
  printTable(
    `${ROUTERS} routers, ${NODES} nodes, ${PICTURE_MS / 1000} s a picture, ${100 * LOAD} % load`,
    ['figure', 'value', 'target'],
    [
      ['requests per second', figures.requestsPerSec, ''],
      ['bids for each request', figures.bidsPerRequest, '<= 12'],
      ['grants for each request', figures.grantsPerRequest, '<= 2'],
      ['declined grants', figures.declinesPerRequest, ''],
      ['calls refused by nodes', figures.refusedPerRequest, ''],
      ['grant to call, median ms', figures.grantToCallP50Ms, ''],
      ['grant to call, p99 ms', figures.grantToCallP99Ms, ''],
      ['a ping sent with the grant, median ms', figures.pingP50Ms, ''],
      ['grant to call beyond its ping, median ms', figures.beyondPingP50Ms, '<= 2'],
      ['a router waits for a core, of all time', figures.starvedRatio, ''],
      ['turn of its event loop, p99 CPU ms', figures.turnCpuP99Ms, ''],
      ['  longest that waited for no core, CPU ms', figures.calmTurnCpuMaxMs, '<= 10'],
      ['  longest of all, CPU ms', figures.turnCpuMaxMs, ''],
      ['  longest of all by the clock, ms', figures.turnWallMaxMs, ''],
      ['busiest router, cores', figures.cpuPerRouterRatio, ''],
      ['mean time to the picture, s', figures.meanS, ''],
      ['failed requests', String(figures.failures), '0'],
    ],
  );
  if (failures[0]) console.log(`  first failure: ${failures[0]}`);
  finish(figures);
} finally {
  for (const swarm of swarms) if (swarm.connected) swarm.disconnect();
  await mesh.stop();
}

async function countsOf(swarm: ChildProcess): Promise<SwarmCounts> {
  const answer = once(swarm, 'message');
  swarm.send('counts');
  const [counts] = await answer;
  return counts as SwarmCounts;
}
