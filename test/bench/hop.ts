/**
 * What does the hop through the router cost? A node that answers at once is called directly, through
 * the router and through nginx (grpc_pass, its defaults) in alternating blocks of one run, with small
 * (1 KB) and large (1.5 MB) answers: added median latency, one call at a time, and CPU of the proxy and
 * its node together for a call among several at once.
 *
 * The router's node is a second process of the same program: a router costs its node some CPU as well
 * (slot states), and that must neither be lost nor be charged to nginx.
 *
 * Only ratios are comparable between machines. Callers' channels have the 4 MB flow-control window of
 * libs/grpc on every path.
 */
import path from 'node:path';
import { generation } from '#contracts';
import { Channel } from '#grpc';
import { Child, LocalMesh } from '#local-mesh';
import { systemClock, thisProcess } from '#runtime';
import { cpuMs } from './support/cpu.js';
import { type Nginx, startNginx } from './support/nginx.js';
import { finish, printTable, quantile, rounded } from './support/report.js';

/** One way to the node. */
interface Way {
  readonly name: string;
  readonly channel: Channel;
  /** Whose CPU it costs. */
  readonly pids: readonly number[];
  readonly latenciesMs: number[];
  readonly cpuMsPerCall: number[];
}

interface WayFigures {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly cpuMsPerCall: number;
}

interface Load {
  readonly answerBytes: number;
  /** For latency: one after the other. */
  readonly calmCalls: number;
  /** For CPU: `atOnce` at any time. */
  readonly busyCalls: number;
  readonly atOnce: number;
}

const SMALL: Load = { answerBytes: 1024, calmCalls: 60, busyCalls: 320, atOnce: 16 };
const LARGE: Load = { answerBytes: 1_500_000, calmCalls: 10, busyCalls: 24, atOnce: 4 };
const ROUNDS = 30;
/** V8 compiles what is hot in steps, over a thousand calls and more; a router that runs for weeks is past that. */
const WARM_UP_ROUNDS = 30;
/** What a server does after its answer has left: its log line, its slot state. */
const AFTERMATH_MS = 3;
const HOP_NODE = path.join(import.meta.dirname, 'hop-node.js');
const REQUEST = generation.GenerateRequest.fromPartial({ prompt: 'a big red circle on a blue background', model: 'fake' });

async function measure(load: Load) {
  const node = { HOP_IMAGE_BYTES: String(load.answerBytes) };
  const router = path.resolve(import.meta.dirname, '../../services/router/main.js');
  // With one node there is no other to try: a machine that stalls for two seconds must not end the run.
  const patient = { DMESH_ROUTER_KEEPALIVE: '20s' };
  const mesh = await LocalMesh.start({ nodes: 1, programs: { router, node: HOP_NODE }, env: { router: patient, node } });
  const { NATS_URL: _unused, ...env } = thisProcess.env;
  const bare = new Child({ id: 'node-without-router', command: [thisProcess.nodePath, HOP_NODE], env: { ...env, ...node } });
  let nginx: Nginx | undefined;
  const ways: Way[] = [];
  try {
    await bare.waitReady(20_000);
    nginx = await startNginx([bare.grpc]);
    const meshPids = [...mesh.routers, ...mesh.nodes].map((child) => child.pid);
    ways.push(way('direct', bare.grpc, [bare.pid]), way('router', mesh.address, meshPids));
    if (nginx) ways.push(way('nginx', nginx.address, [nginx.pid, bare.pid]));
    for (let round = 0; round < WARM_UP_ROUNDS + ROUNDS; round++) {
      if (round === WARM_UP_ROUNDS) for (const each of ways) forget(each);
      // Everyone goes first equally often.
      for (const index of ways.keys()) {
        const each = ways[(round + index) % ways.length] as Way;
        await calmBlock(each, load);
        await busyBlock(each, load);
      }
    }
    return figures(ways, load, nginx);
  } finally {
    for (const { channel } of ways) channel.close();
    await nginx?.stop();
    await bare.stop(1000);
    await mesh.stop();
  }
}

function way(name: string, address: string, pids: readonly number[]): Way {
  return { name, channel: new Channel(address, { clock: systemClock }), pids, latenciesMs: [], cpuMsPerCall: [] };
}

function forget(each: Way): void {
  each.latenciesMs.length = 0;
  each.cpuMsPerCall.length = 0;
}

async function calmBlock(each: Way, load: Load): Promise<void> {
  for (let i = 0; i < load.calmCalls; i++) {
    const sentAt = performance.now();
    await call(each, load);
    each.latenciesMs.push(performance.now() - sentAt);
  }
}

async function busyBlock(each: Way, load: Load): Promise<void> {
  await systemClock.sleep(AFTERMATH_MS);
  const cpuBefore = cpuMs(each.pids);
  let left = load.busyCalls;
  const caller = async () => {
    while (left-- > 0) await call(each, load);
  };
  await Promise.all(Array.from({ length: load.atOnce }, caller));
  await systemClock.sleep(AFTERMATH_MS);
  each.cpuMsPerCall.push((cpuMs(each.pids) - cpuBefore) / load.busyCalls);
}

async function call(each: Way, load: Load): Promise<void> {
  const { response } = await each.channel.unary(generation.ImageGenerationServiceService.generate, REQUEST);
  const bytes = response.images[0]?.data.length;
  if (bytes !== load.answerBytes) throw new Error(`expected ${load.answerBytes} bytes through ${each.name}, got ${bytes}`);
}

function figures(ways: readonly Way[], load: Load, nginx: Nginx | undefined) {
  const of = (name: string): WayFigures | undefined => {
    const found = ways.find((each) => each.name === name);
    return found && figuresOf(found);
  };
  const direct = of('direct');
  const router = of('router');
  const baseline = of('nginx');
  if (!direct || !router) throw new Error('expected a direct way and one through the router');
  const addedMs = (through: WayFigures) => through.p50Ms - direct.p50Ms;
  const columns = ['', 'p50 ms', 'p99 ms', 'added p50 ms', 'CPU ms a call'];
  const rows = ways.map((each) => {
    const { p50Ms, p99Ms, cpuMsPerCall } = figuresOf(each);
    return [each.name, p50Ms, p99Ms, each.name === 'direct' ? null : p50Ms - direct.p50Ms, cpuMsPerCall];
  });
  const calls = { latency: ROUNDS * load.calmCalls, cpu: ROUNDS * load.busyCalls };
  printTable(
    `Answers of ${load.answerBytes} bytes: ${calls.latency} calls for latency, ${calls.cpu} for CPU, ${load.atOnce} at once`,
    columns,
    rows,
  );
  return {
    answerBytes: load.answerBytes,
    calls,
    atOnce: load.atOnce,
    addedP50Ms: rounded(addedMs(router)),
    addedP50Ratio: baseline ? rounded(addedMs(router) / addedMs(baseline)) : null,
    cpuRatio: baseline ? rounded(router.cpuMsPerCall / baseline.cpuMsPerCall) : null,
    direct,
    router,
    nginx: baseline ? { ...baseline, addedP50Ms: rounded(addedMs(baseline)) } : null,
    nginxVersion: nginx?.version ?? null,
  };
}

function figuresOf(each: Way): WayFigures {
  return {
    p50Ms: rounded(quantile(each.latenciesMs, 0.5)),
    p99Ms: rounded(quantile(each.latenciesMs, 0.99)),
    // The mean over blocks; a median would leave garbage collections out.
    cpuMsPerCall: rounded(each.cpuMsPerCall.reduce((sum, ms) => sum + ms, 0) / each.cpuMsPerCall.length),
  };
}

const small = await measure(SMALL);
const large = await measure(LARGE);
printTable(
  'The router against nginx',
  ['', 'added p50 ms', '× nginx', 'CPU × nginx', 'target'],
  [
    ['1 KB', small.addedP50Ms, small.addedP50Ratio, small.cpuRatio, 'added p50 ≤ 1 ms'],
    ['1.5 MB', large.addedP50Ms, large.addedP50Ratio, large.cpuRatio, 'both ratios ≤ 1'],
  ],
);
finish({ small, large, baseline: large.nginxVersion === null ? null : { name: 'nginx', version: large.nginxVersion } });
