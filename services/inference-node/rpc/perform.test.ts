import { beforeEach, expect, test } from 'vitest';
import { generation } from '#contracts';
import { NO_PREEMPTION } from '#scheduling';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { sampleBeat } from '../../../test/support/sample-beat.js';
import { CostEstimate } from '../domain/cost-estimate.js';
import { type Lease, Slot } from '../domain/slot.js';
import { type GenerationParts, perform } from './perform.js';

const [MODEL] = sampleBeat().models;
let clock: ManualClock;
let slot: Slot;

beforeEach(() => {
  clock = new ManualClock();
  slot = new Slot({
    clock,
    grantTtlMs: 500,
    stagingWindowMs: 30,
    preemption: NO_PREEMPTION,
    firstLeaseId: 1n,
    onChange: () => {},
  });
  slot.setReady(true);
});

const call = () => ({
  method: 'Generate',
  request: generation.GenerateRequest.fromPartial({ prompt: 'a red circle' }),
  metadata: {},
  deadlineAt: Number.POSITIVE_INFINITY,
  signal: new AbortController().signal,
  peer: '',
  trailers: {},
  notes: {},
});

const parts = (changes: Partial<GenerationParts> = {}): GenerationParts => ({
  nodeId: 'n1',
  clock,
  random: () => 0,
  emit: () => {},
  slot,
  estimate: new CostEstimate(),
  onServed: () => {},
  supervisor: { known: {} } as never,
  catalogue: { find: () => ({ info: MODEL }) } as never,
  loader: {} as never,
  executor: { prepare: () => {} } as never,
  ...changes,
});

test('an observer that throws leaves the slot free', async () => {
  const performed = perform(call(), parts(), {
    onStarted: () => {
      expect(slot.snapshot.busyCount).toBe(1);
      throw new Error('the observer');
    },
  });
  await expect(performed).rejects.toThrow('the observer');
  expect(slot.snapshot.busyCount).toBe(0);
});

test('a model that is withdrawn once its request has the slot leaves the slot free', async () => {
  let askedCount = 0;
  const catalogue = {
    find: () => {
      if (askedCount++ > 0) throw new Error('withdrawn');
      return { info: MODEL };
    },
    latest: () => undefined,
  };
  const executor = {
    prepare: () => {},
    run: async (_work: unknown, lease: Lease) => {
      lease.release();
      throw new Error('no engine');
    },
  };
  const changes = { catalogue: catalogue as never, executor: executor as never, loader: { load: async () => {} } as never };
  await expect(perform(call(), parts(changes))).rejects.toThrow('no engine');
  expect(slot.snapshot.busyCount).toBe(0);
});

test('the text of a request that waits for its turn is read ahead, of one whose model is not loaded it is not', async () => {
  const prepared: string[] = [];
  const executor = { prepare: ({ prompt }: { prompt: string }) => prepared.push(`${prompt}, ${slot.snapshot.busyCount}`) } as never;
  const gone = { ...call(), signal: AbortSignal.abort(new Error('gone')) };
  const of = (loaded: boolean) => perform(gone, parts({ executor, catalogue: { find: () => ({ info: MODEL, loaded }) } as never }));
  await expect(of(true)).rejects.toThrow('gone');
  await expect(of(false)).rejects.toThrow('gone');
  expect(prepared).toEqual(['a red circle, 0']);
});
