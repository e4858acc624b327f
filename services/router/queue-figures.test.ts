import { expect, test } from 'vitest';
import { generation } from '#contracts';
import { queueFigures } from './queue-figures.js';

const { HIGH, NORMAL, LOW } = generation.Priority;

test('queueFigures() counts by class and by tenant, most GPU time first', () => {
  const figures = queueFigures([
    { priority: 'high', tenant: 'a', costMs: 500 },
    { priority: 'low', tenant: 'b', costMs: 3000 },
    { priority: 'low', tenant: 'a', costMs: 1000 },
  ]);
  expect(figures).toEqual({
    classes: [
      { priority: HIGH, queuedCount: 1, queuedGpuSeconds: 0.5 },
      { priority: NORMAL, queuedCount: 0, queuedGpuSeconds: 0 },
      { priority: LOW, queuedCount: 2, queuedGpuSeconds: 4 },
    ],
    tenants: [
      { tenant: 'b', queuedCount: 1, queuedGpuSeconds: 3 },
      { tenant: 'a', queuedCount: 2, queuedGpuSeconds: 1.5 },
    ],
    otherTenants: undefined,
  });
});

test('queueFigures() names twenty tenants and adds up the rest', () => {
  const waiting = Array.from({ length: 1000 }, (_, i) => ({ priority: 'normal' as const, tenant: `t${i % 50}`, costMs: 1 + (i % 50) }));
  const { tenants, otherTenants } = queueFigures(waiting);
  expect(tenants).toHaveLength(20);
  expect(tenants[0]?.tenant).toBe('t49');
  expect(otherTenants).toMatchObject({ tenantCount: 30, queuedCount: 600 });
  const all = [...tenants, otherTenants].reduce((sum, load) => sum + (load?.queuedGpuSeconds ?? 0), 0);
  expect(all).toBeCloseTo(
    waiting.reduce((sum, { costMs }) => sum + costMs / 1000, 0),
    9,
  );
});
