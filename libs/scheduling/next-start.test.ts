/** Models and loads, on simulated traces: who specialises, who swaps, who waits. */
import { describe, expect, test } from 'vitest';
import { nextStart, type Start } from './next-start.js';
import { place } from './placement.js';
import { type Waiting, WaitQueue } from './wait-queue.js';

interface Request extends Waiting {
  readonly model: string;
}

interface Trace {
  readonly nodeCount: number;
  readonly runMs: number;
  readonly loadMs: number;
  readonly requests: readonly Omit<Request, 'costMs' | 'tenant' | 'deadlineAt'>[];
}

interface SimulatedNode {
  readonly nodeId: string;
  loaded: string;
  freeAt: number;
}

/** First come, first served but for models, on nodes that hold one model each and begin with the first. */
function simulate({ nodeCount, runMs, loadMs, requests }: Trace) {
  const queue = new WaitQueue<Request>({
    shares: { high: 0.6, normal: 0.3, low: 0.1 },
    promoteAfterMs: Infinity,
    patienceFactor: 0,
    kindOf: ({ model }) => model,
  });
  const nodes: SimulatedNode[] = Array.from({ length: nodeCount }, (_, i) => ({ nodeId: `n${i}`, loaded: 'a', freeAt: 0 }));
  const putOffAt = new Map<Request, number>();
  const ended: { readonly request: Request; readonly waitedMs: number }[] = [];
  let loadCount = 0;
  const startAll = (nowMs: number) => {
    const next = (): Start<Request> | undefined =>
      nextStart(queue, {
        fits: () => true,
        kindOf: ({ model }) => model,
        modelOf: ({ model }) => model,
        placementOf: ({ model }) =>
          place(
            nodes.map(({ nodeId, loaded, freeAt }) => ({
              nodeId,
              freeInMs: Math.max(0, freeAt - nowMs),
              loadMs: loaded === model ? 0 : loadMs,
              runMs,
              doubtful: false,
              sameZone: false,
            })),
          ),
        mayPutOff: ({ entry, on }) => {
          if (!putOffAt.has(entry)) putOffAt.set(entry, nowMs);
          return nowMs - (putOffAt.get(entry) ?? 0) < Math.max(on.loadMs, on.runMs);
        },
      });
    for (let start = next(); start; start = next()) {
      const { entry, on } = start;
      const node = nodes.find(({ nodeId }) => nodeId === on.nodeId) ?? expect.fail('a node that is none');
      expect(node.freeAt).toBeLessThanOrEqual(nowMs);
      queue.take(entry);
      if (on.loadMs > 0) loadCount++;
      node.loaded = entry.model;
      node.freeAt = nowMs + on.loadMs + runMs;
      ended.push({ request: entry, waitedMs: nowMs - entry.arrivedAt });
    }
  };
  const arriving = requests.map((request) => ({ ...request, costMs: runMs, tenant: 't', deadlineAt: Infinity }));
  for (let nowMs = 0; arriving.length > 0 || queue.size > 0; ) {
    while (arriving[0] && arriving[0].arrivedAt <= nowMs) queue.add(arriving.shift() ?? expect.fail('nobody'));
    startAll(nowMs);
    nowMs = Math.min(arriving[0]?.arrivedAt ?? Infinity, ...nodes.filter((node) => node.freeAt > nowMs).map((node) => node.freeAt));
    expect(nowMs === Infinity && queue.size > 0).toBe(false); // somebody waits, and nothing will happen
    if (nowMs === Infinity) break;
  }
  const busyUntil = Math.max(...nodes.map((node) => node.freeAt));
  return { loadCount, ended, busyUntil, maxWaitMs: Math.max(...ended.map(({ waitedMs }) => waitedMs)) };
}

const alternating = (count: number, everyMs: number) =>
  Array.from({ length: count }, (_, i) => ({ arrival: i, arrivedAt: i * everyMs, priority: 'normal' as const, model: 'ab'[i % 2] ?? 'a' }));

function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}

describe('nextStart()', () => {
  test.each([
    ['loads of many runs', 3000, 60_000],
    ['loads as long as a run', 1000, 1000],
    ['short loads', 1000, 200],
  ])('two nodes specialise under alternating requests, %s', (_what, runMs, loadMs) => {
    for (const utilisation of [0.5, 0.9, 1.2]) {
      const { loadCount, ended } = simulate({ nodeCount: 2, runMs, loadMs, requests: alternating(400, runMs / 2 / utilisation) });
      expect(ended).toHaveLength(400);
      expect(loadCount, `at ${utilisation}`).toBeLessThanOrEqual(3);
    }
  });

  test('one node with two models draws at least as long as it loads, and nobody waits for ever', () => {
    const [runMs, loadMs, count] = [1000, 10_000, 200];
    const { loadCount, busyUntil, ended } = simulate({ nodeCount: 1, runMs, loadMs, requests: alternating(count, 0) });
    expect(ended).toHaveLength(count);
    expect(loadCount * loadMs).toBeLessThanOrEqual(count * runMs + loadMs);
    expect(busyUntil).toBeLessThanOrEqual(2 * count * runMs + loadMs);
  });

  test('an idle node loads for a line that is long enough, and not for one request that is next elsewhere', () => {
    const burst = (size: number) => [
      { arrival: 0, arrivedAt: 0, priority: 'normal' as const, model: 'b' },
      ...Array.from({ length: size }, (_, i) => ({ arrival: i + 1, arrivedAt: 11_000, priority: 'normal' as const, model: 'b' })),
    ];
    expect(simulate({ nodeCount: 2, runMs: 1000, loadMs: 10_000, requests: burst(5) }).loadCount).toBe(1);
    const long = simulate({ nodeCount: 2, runMs: 1000, loadMs: 10_000, requests: burst(40) });
    expect(long.loadCount).toBe(2);
    expect(long.maxWaitMs).toBeLessThan(27_000); // one node alone would take 40 s
  });

  test('a load is put off for nobody of a lower class', () => {
    const low = Array.from({ length: 20 }, (_, i) => ({ arrival: i, arrivedAt: 0, priority: 'low' as const, model: 'a' }));
    const high = { arrival: 20, arrivedAt: 500, priority: 'high' as const, model: 'b' };
    const { ended } = simulate({ nodeCount: 1, runMs: 1000, loadMs: 5000, requests: [...low, high] });
    expect(ended.find(({ request }) => request.priority === 'high')?.waitedMs).toBe(500);
  });

  test('of random requests for three models on four busy nodes, fewer than one in ten makes a node load', () => {
    let loadCount = 0;
    for (let seed = 1; seed <= 5; seed++) {
      const random = randomOf(seed);
      let arrivedAt = 0;
      const requests = Array.from({ length: 400 }, (_, arrival) => {
        arrivedAt += -Math.log(random()) * (3000 / 4 / 0.8);
        return { arrival, arrivedAt, priority: 'normal' as const, model: 'abc'[Math.floor(random() * 3)] ?? 'a' };
      });
      loadCount += simulate({ nodeCount: 4, runMs: 3000, loadMs: 30_000, requests }).loadCount;
    }
    expect(loadCount).toBeLessThan((5 * 400) / 10);
  });

  test('on random traces every request is served once, whatever the figures', () => {
    for (let seed = 1; seed <= 40; seed++) {
      const random = randomOf(seed);
      const requests = Array.from({ length: 120 }, (_, arrival) => ({
        arrival,
        arrivedAt: Math.floor(arrival * 300 * random()),
        priority: (['high', 'normal', 'low'] as const)[Math.floor(random() * 3)] ?? 'low',
        model: 'abc'[Math.floor(random() * 3)] ?? 'a',
      }));
      requests.sort((x, y) => x.arrivedAt - y.arrivedAt);
      const nodeCount = 1 + Math.floor(random() * 4);
      const { ended } = simulate({ nodeCount, runMs: 1000, loadMs: Math.floor(random() * 20_000), requests });
      expect(new Set(ended.map(({ request }) => request.arrival)).size, `seed ${seed}`).toBe(120);
      expect(ended, `seed ${seed}`).toHaveLength(120);
    }
  });
});
