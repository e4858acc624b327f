import { describe, expect, test } from 'vitest';
import { CostModel, workTflop } from './cost-model.js';
import { LeaseTable } from './lease-table.js';
import { type Candidate, place } from './placement.js';
import { RetryBudget } from './retry-budget.js';

const work = { model: 'm', width: 1024, height: 1024, steps: 8, imageCount: 1, guidanceScale: 0 };

describe('CostModel', () => {
  test('work of a 1024², 8-step picture is the 460 TFLOP of the roofline', () => {
    expect(workTflop(work)).toBeGreaterThan(440);
    expect(workTflop(work)).toBeLessThan(480);
  });

  test('a first observation replaces the prior', () => {
    const model = new CostModel({ priorMs: 1000 });
    expect(model.predictMs('n1', work)).toBeCloseTo(1000);
    model.observe('n1', work, 600);
    expect(model.predictMs('n1', work)).toBeCloseTo(600);
  });

  test('a node never seen is predicted as the median of those that were', () => {
    const model = new CostModel({ priorMs: 1000 });
    for (const [node, ms] of [
      ['a', 400],
      ['b', 500],
      ['c', 5000],
    ] as const)
      model.observe(node, work, ms);
    expect(model.predictMs('new', work)).toBeCloseTo(500);
  });

  test('one stall moves a trusted estimate by at most the clipped surprise', () => {
    const model = new CostModel({ priorMs: 1000 });
    for (let i = 0; i < 5; i++) model.observe('n1', work, 500);
    model.observe('n1', work, 500_000);
    expect(model.predictMs('n1', work)).toBeCloseTo(500 * 1.4);
  });

  test('sizes are learned apart and unknown ones scale by work', () => {
    const model = new CostModel({ priorMs: 1000 });
    const small = { ...work, width: 512, height: 512 };
    model.observe('n1', work, 500);
    expect(model.predictMs('n1', small)).toBeCloseTo((500 * workTflop(small)) / workTflop(work));
    model.observe('n1', small, 300);
    expect(model.predictMs('n1', small)).toBeCloseTo(300);
    expect(model.predictMs('n1', work)).toBeCloseTo(500);
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY, 0, -5])('an actual of %s teaches nothing', (actualMs) => {
    const model = new CostModel({ priorMs: 1000 });
    model.observe('n1', work, actualMs);
    expect(model.predictMs('n1', work)).toBeCloseTo(1000);
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
      or: { nodeId: 'slow' },
      unlessAheadMs: 2800, // four fifths of 5000, less 1200
    });
  });

  test('does not wait for a small gain', () => {
    const busy = candidate({ nodeId: 'busy', freeInMs: 100, runMs: 1000 });
    expect(place([candidate({ nodeId: 'idle', runMs: 1200 }), busy])).toMatchObject(start('idle'));
  });

  test('a load counts: on both sides of the edge', () => {
    const busy = candidate({ nodeId: 'loaded', freeInMs: 900 });
    expect(place([candidate({ nodeId: 'idle', loadMs: 901 }), busy])).toMatchObject({
      kind: 'wait',
      unlessAheadMs: 1,
      or: { nodeId: 'idle' },
    });
    expect(place([candidate({ nodeId: 'idle', loadMs: 900 }), busy])).toMatchObject(start('idle'));
    expect(place([candidate({ nodeId: 'idle', loadMs: 100 }), candidate({ nodeId: 'loaded' })])).toMatchObject(start('loaded'));
  });

  test('several busy nodes take more ahead of it', () => {
    const busy = [200, 400].map((freeInMs) => candidate({ nodeId: `in ${freeInMs}`, freeInMs }));
    expect(place([candidate({ nodeId: 'idle', loadMs: 1000 }), ...busy])).toMatchObject({ unlessAheadMs: 1400 });
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
