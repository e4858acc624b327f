/**
 * Who waits how long when pictures differ in size? One trace of requests (60 % cost 1, 30 % cost 4, 10 %
 * cost 9; Poisson arrivals at 90 % of what eight nodes can draw) is played against real routers and nodes
 * under each policy. The nodes' engines are scripted to take their time without using a core. What the nodes
 * can draw, and how long a picture takes when nobody else asks, is measured first.
 *
 *   ours          the router's order: classes, fairness, virtual deadlines
 *   oursPreempt   ours, and a running picture gives way to a much shorter one (DMESH_NODE_PREEMPTION=short)
 *   fifo          the same router, first come first served (DMESH_ROUTER_PATIENCE=0)
 *   leastConn     nginx least_conn + grpc_pass, each node with a line of its own; where nginx is not
 *                 installed, the same choice made by this program
 *   fourRouters   ours, the trace spread evenly over four routers
 *   skewed        ours, four fifths of it at one router and the rest at three
 *
 * And: how fast urgent pictures are while a flood of LOW ones waits, against an empty mesh; and how evenly
 * two tenants are served (Jain's index of their GPU time) when one asks ten times as much.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DEFAULT_LIMITS, formatTokenFile, hashSecret, makeToken } from '#access';
import { connectMesh, type MeshClient, MeshError, type PictureRequest } from '#client';
import { LocalMesh } from '#local-mesh';
import { packageRoot, systemClock } from '#runtime';
import { type FifoGate, startFifoGate } from './fifo-gate.js';
import { startNginx } from './support/nginx.js';
import { finish, printTable, quantile, rounded } from './support/report.js';

const NODE_COUNT = 8;
const STEP_MS = 50;
const STEPS_PER_COST = 2;
const UNIT_MS = STEP_MS * STEPS_PER_COST;
const MIX = [
  { cost: 1, share: 0.6 },
  { cost: 4, share: 0.3 },
  { cost: 9, share: 0.1 },
] as const;
const MEAN_COST = MIX.reduce((sum, { cost, share }) => sum + cost * share, 0);
const LOAD = 0.9;
const SEEDS = [1, 2] as const;
const REQUESTS_PER_SEED = 1000;
const GOOD_RATIO = 3;
const FAIRNESS_MS = 20_000;
const CALIBRATION_MS = 10_000;

interface Arrival {
  readonly atMs: number;
  readonly cost: number;
}

interface Sample {
  readonly cost: number;
  readonly tookMs: number;
}

type Ask = (request: PictureRequest, index: number) => Promise<unknown>;

const engine = `node ${path.join(packageRoot, 'dist/test/engines/scriptable/main.js')}`;
const nodeEnv = { SCRIPT_STEP: `${STEP_MS}ms`, DMESH_NODE_MODEL_DIR: path.join(packageRoot, 'no-such-model') };
const picture = (cost: number): PictureRequest => ({ prompt: 'x', width: 64, height: 64, steps: cost * STEPS_PER_COST });

/** What this machine's nodes do. */
interface Pace {
  /** Pictures of the mix that all nodes together draw in a second, the queue always full. */
  readonly perSec: number;
  /** Time of one picture that has the mesh for itself, by cost. */
  readonly aloneMs: ReadonlyMap<number, number>;
}

function calibrate(): Promise<Pace> {
  return withMesh({}, async (_mesh, [client]) => {
    if (!client) throw new Error('expected a router');
    const aloneMs = new Map<number, number>();
    for (const { cost } of MIX) {
      const tookMs: number[] = [];
      for (let i = 0; i < 10; i++) {
        const startedAt = performance.now();
        await client.generate(picture(cost), patient);
        tookMs.push(performance.now() - startedAt);
      }
      aloneMs.set(cost, quantile(tookMs, 0.5));
    }
    // In units of cost, so that it does not matter which sizes a short measurement happened to see.
    let drawn = 0;
    let over = false;
    let asked = 0;
    const callers = Array.from({ length: 4 * NODE_COUNT }, async () => {
      while (!over) {
        const cost = costOf((asked++ % 10) / 10);
        await client.generate(picture(cost), patient);
        drawn += cost;
      }
    });
    await systemClock.sleep(2000);
    const before = drawn;
    await systemClock.sleep(CALIBRATION_MS);
    const perSec = ((drawn - before) * 1000) / CALIBRATION_MS / MEAN_COST;
    over = true;
    await Promise.all(callers);
    return { perSec, aloneMs };
  });
}

function traceOf(seed: number, { perSec }: Pace): Arrival[] {
  let state = seed;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  for (let i = 0; i < 10; i++) random(); // small seeds start alike
  const meanGapMs = 1000 / perSec / LOAD;
  let atMs = 0;
  return Array.from({ length: REQUESTS_PER_SEED }, () => {
    atMs += -Math.log(random()) * meanGapMs;
    return { atMs, cost: costOf(random()) };
  });
}

/** `dice` from 0 to 1. */
function costOf(dice: number): number {
  let below = 0;
  for (const { cost, share } of MIX) {
    below += share;
    if (dice < below) return cost;
  }
  return MIX[0].cost;
}

/** Sends each request at its time, whatever has become of the others. */
async function play(trace: readonly Arrival[], ask: Ask): Promise<Sample[]> {
  const startedAt = performance.now();
  const answers: Promise<Sample>[] = [];
  for (const [index, { atMs, cost }] of trace.entries()) {
    const waitMs = atMs - (performance.now() - startedAt);
    if (waitMs > 0) await systemClock.sleep(waitMs);
    const dueAt = startedAt + atMs;
    answers.push(ask(picture(cost), index).then(() => ({ cost, tookMs: performance.now() - dueAt })));
  }
  return Promise.all(answers);
}

const patient = { timeoutMs: 600_000 };

async function withMesh<Result>(
  options: { routers?: number; routerEnv?: Record<string, string>; preemption?: 'short'; token?: string },
  use: (mesh: LocalMesh, clients: MeshClient[]) => Promise<Result>,
): Promise<Result> {
  // Nothing is refused here: what is measured is the order.
  const router = { DMESH_ROUTER_QUEUE_MIN: '100000', ...options.routerEnv };
  const node = { ...nodeEnv, DMESH_NODE_PREEMPTION: options.preemption ?? 'off' };
  const token = options.token === undefined ? {} : { token: options.token };
  const mesh = await LocalMesh.start({ nodes: NODE_COUNT, engine, env: { node, router }, ...token });
  try {
    for (let i = 1; i < (options.routers ?? 1); i++) await mesh.addRouter();
    for (const each of mesh.routers) await mesh.waitForNodes(NODE_COUNT, { router: each });
    const clients = mesh.routers.map(({ grpc }) => connectMesh({ address: grpc, ...token }));
    try {
      // Every node draws every size: routers know what they cost.
      for (const client of clients) {
        for (const { cost } of MIX)
          await Promise.all(Array.from({ length: 2 * NODE_COUNT }, () => client.generate(picture(cost), patient)));
      }
      return await use(mesh, clients);
    } finally {
      for (const client of clients) client.close();
    }
  } finally {
    await mesh.stop();
  }
}

async function playAll(ask: Ask): Promise<Sample[]> {
  const samples: Sample[] = [];
  for (const seed of SEEDS) samples.push(...(await play(traceOf(seed, pace), ask)));
  return samples;
}

const through =
  (clients: readonly MeshClient[], choose: (index: number) => number): Ask =>
  (request, index) =>
    (clients[choose(index)] as MeshClient).generate(request, patient);

async function leastConn(): Promise<{ samples: Sample[]; by: string }> {
  return withMesh({}, async (mesh) => {
    const gates: FifoGate[] = await Promise.all(mesh.nodes.map(({ grpc }) => startFifoGate(grpc)));
    const nginx = await startNginx(
      gates.map(({ address }) => address),
      'least_conn;',
    );
    const clients = (nginx ? [nginx.address] : gates.map(({ address }) => address)).map((address) => connectMesh({ address }));
    const inFlight = clients.map(() => 0);
    try {
      const samples = await playAll(async (request) => {
        const chosen = inFlight.indexOf(Math.min(...inFlight));
        inFlight[chosen] = (inFlight[chosen] ?? 0) + 1;
        try {
          await (clients[chosen] as MeshClient).generate({ model: 'scripted', ...request }, patient);
        } finally {
          inFlight[chosen] = (inFlight[chosen] ?? 0) - 1;
        }
      });
      return { samples, by: nginx ? `nginx ${nginx.version} least_conn` : 'least calls in flight, chosen by this program' };
    } finally {
      for (const client of clients) client.close();
      await nginx?.stop();
      await Promise.all(gates.map((gate) => gate.close()));
    }
  });
}

function figuresOf(samples: readonly Sample[]) {
  const slowdowns = samples.map(({ cost, tookMs }) => tookMs / (pace.aloneMs.get(cost) ?? Number.NaN));
  const of = (cost: number) => samples.filter((sample) => sample.cost === cost).map(({ tookMs }) => tookMs / 1000);
  return {
    attainment3x: rounded(slowdowns.filter((slowdown) => slowdown <= GOOD_RATIO).length / samples.length),
    meanS: rounded(samples.reduce((sum, { tookMs }) => sum + tookMs, 0) / samples.length / 1000),
    smallP95S: rounded(quantile(of(1), 0.95)),
    largeP99S: rounded(quantile(of(9), 0.99)),
    slowdownP99: rounded(quantile(slowdowns, 0.99)),
  };
}

/** Urgent small pictures, one every few hundred milliseconds, with and without LOW ones piled up. */
async function urgentUnderFlood(options: { routers?: number; preemption?: 'short' } = {}) {
  return withMesh(options, async (_mesh, clients) => {
    const ask = (index: number, priority: 'high' | 'low') =>
      (clients[index % clients.length] as MeshClient).generate({ ...picture(4), priority }, patient);
    const urgent = async (): Promise<number[]> => {
      const tookMs: number[] = [];
      for (let i = 0; i < 60; i++) {
        const startedAt = performance.now();
        await ask(i, 'high');
        tookMs.push(performance.now() - startedAt);
      }
      return tookMs;
    };
    const calm = quantile(await urgent(), 0.95);
    let flooding = true;
    const flood = Array.from({ length: 6 * NODE_COUNT }, async (_, index) => {
      while (flooding) await ask(index, 'low');
    });
    await systemClock.sleep(1000); // until the flood fills every node
    const flooded = quantile(await urgent(), 0.95);
    flooding = false;
    await Promise.all(flood);
    return { calmP95Ms: rounded(calm), floodedP95Ms: rounded(flooded), ratio: rounded(flooded / calm) };
  });
}

/** Jain's index of GPU time over two tenants that both always have requests waiting; 1 is even, 0.5 is all to one. */
async function evenness(): Promise<number> {
  const dir = await mkdtemp(path.join(tmpdir(), 'dmesh-bench-'));
  try {
    const issue = async (tenant: string) => {
      const { id, secret, text } = makeToken();
      const limits = { ...DEFAULT_LIMITS, ratePerSec: 10_000, burst: 10_000 };
      return {
        text,
        entry: {
          id,
          hash: await hashSecret(secret),
          tenant,
          ...limits,
          maxPriority: 'high',
          models: undefined,
          admin: true,
          actsFor: false,
        } as const,
      };
    };
    const [operator, modest, greedy] = [await issue('operator'), await issue('modest'), await issue('greedy')];
    const file = path.join(dir, 'tokens.json');
    await writeFile(file, formatTokenFile([operator.entry, modest.entry, greedy.entry]));
    return await withMesh({ routerEnv: { DMESH_ROUTER_TOKEN_FILE: file }, token: operator.text }, async (mesh) => {
      const given: number[] = [];
      let counting = true;
      const tenants = [
        { token: modest.text, callers: 2 * NODE_COUNT, cost: 1 },
        { token: greedy.text, callers: 20 * NODE_COUNT, cost: 4 },
      ].map(async ({ token, callers, cost }, tenant) => {
        given[tenant] = 0;
        const client = connectMesh({ address: mesh.address, token });
        const caller = async () => {
          while (counting) {
            await client.generate(picture(cost), patient);
            if (counting) given[tenant] = (given[tenant] ?? 0) + cost;
          }
        };
        await Promise.all(Array.from({ length: callers }, caller));
        client.close();
      });
      await systemClock.sleep(FAIRNESS_MS);
      counting = false;
      await Promise.all(tenants);
      const sum = given.reduce((total, each) => total + each, 0);
      return sum ** 2 / (given.length * given.reduce((total, each) => total + each ** 2, 0));
    });
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

const pace = await calibrate();
const skew = (index: number): number => (index % 5 < 4 ? 0 : 1 + (index % 3));
try {
  const ours = await withMesh({}, (_mesh, clients) => playAll(through(clients, () => 0)));
  const oursPreempt = await withMesh({ preemption: 'short' }, (_mesh, clients) => playAll(through(clients, () => 0)));
  const fifo = await withMesh({ routerEnv: { DMESH_ROUTER_PATIENCE: '0' } }, (_mesh, clients) => playAll(through(clients, () => 0)));
  const balanced = await leastConn();
  const fourRouters = await withMesh({ routers: 4 }, (_mesh, clients) => playAll(through(clients, (index) => index % 4)));
  const skewed = await withMesh({ routers: 4 }, (_mesh, clients) => playAll(through(clients, skew)));
  const policies = {
    ours: figuresOf(ours),
    oursPreempt: figuresOf(oursPreempt),
    fifo: figuresOf(fifo),
    leastConn: figuresOf(balanced.samples),
    fourRouters: figuresOf(fourRouters),
    skewed: figuresOf(skewed),
  };
  printTable(
    `${SEEDS.length * REQUESTS_PER_SEED} requests, ${NODE_COUNT} nodes, ${100 * LOAD} % load, unit ${UNIT_MS} ms; leastConn: ${balanced.by}`,
    ['', 'in 3× time', 'mean s', 'p95 small s', 'p99 large s', 'p99 slowdown'],
    Object.entries(policies).map(([name, f]) => [name, f.attainment3x, f.meanS, f.smallP95S, f.largeP99S, f.slowdownP99]),
  );
  const { ours: mine, leastConn: theirs } = policies;
  console.log(
    '  targets: ours in 3× time ≥ 0.96, ≥ 0.98 with pre-emption, mean ≤ 0.75 × leastConn, p99 large ≤ 1.35 × leastConn, four routers within 0.01',
  );
  console.log(
    `  mean × leastConn ${(mine.meanS / theirs.meanS).toFixed(2)}, p99 large × leastConn ${(mine.largeP99S / theirs.largeP99S).toFixed(2)}`,
  );
  const urgent = await urgentUnderFlood();
  const urgentFourRouters = await urgentUnderFlood({ routers: 4 });
  const urgentPreempt = await urgentUnderFlood({ preemption: 'short' });
  for (const [how, f] of Object.entries({ '': urgent, ' with four routers': urgentFourRouters, ' with pre-emption': urgentPreempt })) {
    console.log(`  HIGH p95${how}: ${f.calmP95Ms} ms alone, ${f.floodedP95Ms} ms under a flood of LOW, × ${f.ratio}`);
  }
  console.log('  targets: with four routers within 10 % of one, with pre-emption × ≤ 1.3');
  const jain = rounded(await evenness());
  console.log(`  two tenants, one asking ten times as much: Jain's index of GPU time ${jain}, target ≥ 0.95`);
  finish({
    pace: { perSec: rounded(pace.perSec), aloneMs: Object.fromEntries(pace.aloneMs) },
    policies,
    leastConnBy: balanced.by,
    urgent,
    urgentFourRouters,
    urgentPreempt,
    jain,
  });
} catch (thrown) {
  if (thrown instanceof MeshError) console.error(`${thrown.reason}: ${thrown.message}`);
  throw thrown;
}
