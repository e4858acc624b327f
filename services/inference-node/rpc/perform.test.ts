import { expect, test } from 'vitest';
import { generation } from '#contracts';
import { NO_PREEMPTION } from '#scheduling';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { sampleBeat } from '../../../test/support/sample-beat.js';
import { CostEstimate } from '../domain/cost-estimate.js';
import { Slot } from '../domain/slot.js';
import { perform } from './perform.js';

test('an observer that throws leaves the slot free', async () => {
  const clock = new ManualClock();
  const slot = new Slot({
    clock,
    grantTtlMs: 500,
    stagingWindowMs: 30,
    preemption: NO_PREEMPTION,
    firstLeaseId: 1n,
    onChange: () => {},
  });
  slot.setReady(true);
  const [model] = sampleBeat().models;
  const parts = { nodeId: 'n1', clock, random: () => 0, emit: () => {}, slot, estimate: new CostEstimate(), onServed: () => {} };
  const call = {
    method: 'Generate',
    request: generation.GenerateRequest.fromPartial({ prompt: 'a red circle' }),
    metadata: {},
    deadlineAt: Number.POSITIVE_INFINITY,
    signal: new AbortController().signal,
    peer: '',
    trailers: {},
    notes: {},
  };
  const performed = perform(
    call,
    {
      ...parts,
      supervisor: { known: {} } as never,
      catalogue: { find: () => ({ info: model }) } as never,
      loader: {} as never,
      executor: {} as never,
    } as const,
    {
      onStarted: () => {
        expect(slot.snapshot.busyCount).toBe(1);
        throw new Error('the observer');
      },
    },
  );
  await expect(performed).rejects.toThrow('the observer');
  expect(slot.snapshot.busyCount).toBe(0);
});
