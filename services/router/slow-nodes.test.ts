import { expect, test } from 'vitest';
import type { FleetNode } from './dispatch/fleet-node.js';
import { SlowNodes } from './slow-nodes.js';

test('a canary in quarantine draws with a model that is loaded: a load would outlast it and say nothing', () => {
  const slowness: Readonly<Record<string, number>> = { unloaded: 9, loaded: 4, unseen: 1 };
  const cost = {
    slowness: (_node: string, model: string) => slowness[model] ?? 1,
    yardstick: (_node: string, model: string) => (model === 'unseen' ? undefined : { work: { model }, expectedMs: 500 }),
  };
  const slowNodes = new SlowNodes({
    cost: cost as never,
    fleet: {} as never,
    emit: () => {},
    settings: { slowRatio: 1.5, quarantineRatio: 3 },
  });
  const yardstickOf = (...models: { name: string; loaded?: boolean }[]) =>
    slowNodes.yardstick({ nodeId: 'n1', breaker: { cause: 'tooSlow' }, beat: { models } } as unknown as FleetNode)?.work.model;
  expect(yardstickOf({ name: 'unloaded', loaded: false }, { name: 'loaded' })).toBe('loaded');
  expect(yardstickOf({ name: 'unloaded', loaded: false }, { name: 'unseen' })).toBe('unloaded');
});
