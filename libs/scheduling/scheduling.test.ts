import { describe, expect, test } from 'vitest';
import { CostModel, workTflop } from './cost-model.js';
import { LeaseTable } from './lease-table.js';
import { type Candidate, place } from './placement.js';
import { RetryBudget } from './retry-budget.js';

const work = { model: 'm', width: 1024, height: 1024, steps: 8, imageCount: 1, guidanceScale: 0 };

const newModel = (deviceOf: (nodeId: string) => string | undefined = () => undefined) =>
  new CostModel({ priorMs: 1000, slowRatio: 1.5, deviceOf });

describe('CostModel', () => {
  test('work of a 1024², 8-step picture is the 460 TFLOP of the roofline', () => {
    expect(workTflop(work)).toBeGreaterThan(440);
    expect(workTflop(work)).toBeLessThan(480);
  });

  test('a first observation replaces the prior', () => {
    const model = newModel();
    expect(model.predictMs('n1', work)).toBeCloseTo(1000);
    model.observe('n1', work, 600);
    expect(model.predictMs('n1', work)).toBeCloseTo(600);
  });

  test('a node never seen is predicted as the median of those that were', () => {
    const model = newModel();
    for (const [node, ms] of [
      ['a', 400],
      ['b', 500],
      ['c', 5000],
    ] as const)
      model.observe(node, work, ms);
    expect(model.predictMs('new', work)).toBeCloseTo(500);
  });

  test('one stall moves a trusted estimate by at most the clipped surprise', () => {
    const model = newModel();
    for (let i = 0; i < 5; i++) model.observe('n1', work, 500);
    model.observe('n1', work, 500_000);
    expect(model.predictMs('n1', work)).toBeCloseTo(500 * 1.4);
  });

  test('sizes are learned apart and unknown ones scale by work', () => {
    const model = newModel();
    const small = { ...work, width: 512, height: 512 };
    model.observe('n1', work, 500);
    expect(model.predictMs('n1', small)).toBeCloseTo((500 * workTflop(small)) / workTflop(work));
    model.observe('n1', small, 300);
    expect(model.predictMs('n1', small)).toBeCloseTo(300);
    expect(model.predictMs('n1', work)).toBeCloseTo(500);
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY, 0, -5])('an actual of %s teaches nothing', (actualMs) => {
    const model = newModel();
    model.observe('n1', work, actualMs);
    expect(model.predictMs('n1', work)).toBeCloseTo(1000);
  });
});

describe('slowness', () => {
  const seen = (model: CostModel, node: string, ...times: readonly number[]) => {
    for (const ms of times) model.observe(node, work, ms);
  };
  const well = [1000, 1020, 980, 1010, 990];

  test('a GPU three times as slow as the next is not slow: it is what it is', () => {
    const model = newModel((node) => node);
    for (const node of ['h100-a', 'h100-b', 'h100-c']) seen(model, node, ...well);
    seen(model, '4090', ...well.map((ms) => 3 * ms));
    expect(model.slowness('4090', 'm')).toBeLessThan(1.1);
  });

  test('one stall, or two, of five make no node slow; a slower pace does, and is forgiven as soon as it is over', () => {
    const model = newModel();
    for (const node of ['a', 'b', 'c']) seen(model, node, ...well);
    seen(model, 'c', 60_000, 1000, 60_000, 1000);
    expect(model.slowness('c', 'm')).toBeLessThan(1.1);
    seen(model, 'c', ...well.map((ms) => 4 * ms));
    expect(model.slowness('c', 'm')).toBeGreaterThan(3);
    seen(model, 'c', ...well);
    expect(model.slowness('c', 'm')).toBeLessThan(1.3);
  });

  test('a node that was never well is found by others of its device', () => {
    const model = newModel(() => 'NVIDIA H100');
    for (const node of ['a', 'b', 'c']) seen(model, node, ...well);
    seen(model, 'sick', ...well.map((ms) => 4 * ms));
    expect(model.slowness('sick', 'm')).toBeGreaterThan(3);
    for (const node of ['a', 'b', 'c']) expect(model.slowness(node, 'm')).toBeLessThan(1.1);
  });

  test('what makes all nodes slower makes none slow', () => {
    const model = newModel();
    for (const node of ['a', 'b', 'c']) seen(model, node, ...well);
    for (const node of ['a', 'b', 'c']) seen(model, node, ...well.map((ms) => 4 * ms));
    for (const node of ['a', 'b', 'c']) expect(model.slowness(node, 'm')).toBeCloseTo(1, 1);
  });

  test('of two nodes the faster one is the measure; one alone is never slow', () => {
    const model = newModel();
    seen(model, 'a', ...well);
    seen(model, 'a', ...well.map((ms) => 4 * ms));
    expect(model.slowness('a', 'm')).toBeCloseTo(1);
    expect(model.pace('a', 'm')).toBeGreaterThan(3);
    seen(model, 'b', ...well);
    expect(model.slowness('a', 'm')).toBeGreaterThan(3);
    expect(model.slowness('b', 'm')).toBeCloseTo(1, 1);
  });

  test('a node that stays slow is taken for what it is in the end', () => {
    const model = newModel();
    for (const node of ['a', 'b', 'c']) seen(model, node, ...well);
    for (let i = 0; i < 200; i++) seen(model, 'c', 2000);
    expect(model.slowness('c', 'm')).toBeLessThan(1.25);
  });

  test('small pictures, that take longer for their work, are measured against small pictures', () => {
    const model = newModel();
    const small = { ...work, width: 64, height: 64 };
    for (const node of ['a', 'b', 'c']) for (let i = 0; i < 5; i++) model.observe(node, small, 150);
    seen(model, 'a', ...well);
    expect(model.slowness('a', 'm')).toBeCloseTo(1, 1);
    expect(model.yardstick('a', 'm')).toMatchObject({ work: { width: 64 }, expectedMs: expect.closeTo(150, 0) });
  });

  test('what a busy machine adds to short pictures makes no node slow', () => {
    const model = newModel();
    for (const node of ['a', 'b', 'c']) seen(model, node, 10, 11, 9, 10);
    seen(model, 'a', 70, 80, 60, 90, 75);
    expect(model.slowness('a', 'm')).toBe(1);
  });

  test('three requests are needed before a node is judged, and a new life of it begins anew', () => {
    const model = newModel(() => 'NVIDIA H100');
    for (const node of ['a', 'b', 'c']) seen(model, node, ...well);
    seen(model, 'new', 5000, 5000);
    expect(model.slowness('new', 'm')).toBe(1);
    seen(model, 'new', 5000);
    expect(model.slowness('new', 'm')).toBeGreaterThan(3);
    model.judgeAnew('new');
    expect(model.slowness('new', 'm')).toBeCloseTo(1, 1);
  });

  test('a slow node looks a little slower still when a node is chosen', () => {
    const model = newModel();
    for (const node of ['a', 'b', 'c']) seen(model, node, ...well);
    seen(model, 'c', ...well.map((ms) => 3 * ms));
    const [predictedMs, weighedMs] = [model.predictMs('c', work), model.weigher(work)('c')];
    expect(weighedMs / predictedMs).toBeGreaterThan(1.7);
    expect(model.weigher(work)('a')).toBe(model.predictMs('a', work));
  });

  test('a node that was slow when it was asked last is given another try in the end, after those that are fast', () => {
    const model = newModel();
    seen(model, 'late', 4000, 4000);
    for (const node of ['a', 'b', 'c']) seen(model, node, ...well);
    const weighed = () => model.weigher(work)('late') / model.weigher(work)('a');
    expect(weighed()).toBeGreaterThan(3);
    for (let i = 0; i < 50; i++) for (const node of ['a', 'b', 'c']) seen(model, node, 1000);
    expect(weighed()).toBeGreaterThan(1);
    expect(weighed()).toBeLessThan(1.5);
    expect(model.predictMs('late', work)).toBeGreaterThan(3500);
    seen(model, 'late', 4000);
    expect(weighed()).toBeGreaterThan(3);
  });
});

describe('place()', () => {
  const candidate = (over: Partial<Candidate>): Candidate => ({
    nodeId: 'n',
    freeInMs: 0,
    loadMs: 0,
    runMs: 1000,
    doubtful: false,
    sameZone: false,
    ...over,
  });
  const start = (nodeId: string) => ({ kind: 'start', on: { nodeId } });

  test('chooses the earliest predicted finish among idle nodes', () => {
    expect(place([candidate({ nodeId: 'slow', runMs: 3000 }), candidate({ nodeId: 'fast', runMs: 1000 })])).toMatchObject(start('fast'));
  });

  test('waits for a busy node that will finish it much sooner, as long as it has little else to do before', () => {
    expect(place([candidate({ nodeId: 'slow', runMs: 5000 }), candidate({ nodeId: 'fast', freeInMs: 200, runMs: 1000 })])).toMatchObject({
      kind: 'wait',
      soonerCount: 3,
      or: { nodeId: 'slow' },
    });
    expect(place([candidate({ freeInMs: 200 })])).toEqual({ kind: 'wait', soonerCount: Number.POSITIVE_INFINITY, or: undefined });
  });

  test('does not wait for a small gain', () => {
    const busy = candidate({ nodeId: 'busy', freeInMs: 100, runMs: 1000 });
    expect(place([candidate({ nodeId: 'idle', runMs: 1200 }), busy])).toMatchObject(start('idle'));
  });

  test('a load counts: on both sides of the edge', () => {
    const busy = candidate({ nodeId: 'loaded', freeInMs: 900 });
    expect(place([candidate({ nodeId: 'idle', loadMs: 901 }), busy])).toMatchObject({
      kind: 'wait',
      soonerCount: 1,
      or: { nodeId: 'idle' },
    });
    expect(place([candidate({ nodeId: 'idle', loadMs: 900 }), busy])).toMatchObject(start('idle'));
    expect(place([candidate({ nodeId: 'idle', loadMs: 100 }), candidate({ nodeId: 'loaded' })])).toMatchObject(start('loaded'));
  });

  test('several busy nodes take more ahead of it', () => {
    const busy = [200, 400].map((freeInMs) => candidate({ nodeId: `in ${freeInMs}`, freeInMs }));
    expect(place([candidate({ nodeId: 'idle', loadMs: 1000 }), ...busy])).toMatchObject({ soonerCount: 2 });
  });

  test('uses doubtful nodes only when nothing else is', () => {
    const doubtful = candidate({ nodeId: 'suspect', doubtful: true, runMs: 1 });
    expect(place([doubtful, candidate({ nodeId: 'sound' })])).toMatchObject(start('sound'));
    expect(place([doubtful])).toMatchObject(start('suspect'));
  });

  test('breaks ties by zone', () => {
    expect(place([candidate({ nodeId: 'far' }), candidate({ nodeId: 'near', sameZone: true, runMs: 1020 })])).toMatchObject(start('near'));
  });

  test('nobody may take it', () => expect(place([])).toBeUndefined());
});

test('a lease is released exactly once and never frees another', () => {
  const leases = new LeaseTable();
  const facts = { nodeId: 'n1', requestId: 'r', startedAt: 0, expectedEndAt: 1 };
  const [first, second] = [leases.take(facts), leases.take(facts)];
  expect(leases.release(first)).toBe(true);
  expect(leases.release(first)).toBe(false);
  expect(leases.countOn('n1')).toBe(1);
  leases.release(second);
  expect(leases.countOn('n1')).toBe(0);
  expect(leases.size).toBe(0);
});

test('RetryBudget allows the floor on a quiet mesh and the ratio on a busy one', () => {
  const budget = new RetryBudget({ ratio: 0.2, floorCount: 3 });
  const held = [budget.withdraw(1), budget.withdraw(1), budget.withdraw(1)];
  expect(budget.withdraw(1)).toBeUndefined();
  expect(budget.withdraw(100)).toBeDefined();
  held[0]?.();
  held[0]?.();
  expect(budget.retryingCount).toBe(3);
});
