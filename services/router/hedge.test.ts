import { afterEach, expect, test } from 'vitest';
import { generation } from '#contracts';
import { Code, Reason, StatusError } from '#core';
import { systemClock } from '#runtime';
import { FAKE_MODEL, FakeNode } from '../../test/support/fake-node.js';
import { busyWith, CONFIG, cleanUp, cleanups, gate, joined, Service, startRouter, WORK } from '../../test/support/router-world.js';
import type { RouterOptions } from './service.js';

afterEach(cleanUp);

const { HIGH } = generation.Priority;

const HEDGE = { who: 'high', factor: 2, floorMs: 40 } as const;

/** n1 draws HIGH and falls silent, n2 is idle. */
async function startSilent(config: Partial<RouterOptions['config']> = {}) {
  const [silent, idle] = [new FakeNode('n1'), new FakeNode('n2')];
  const wakes = gate();
  const cancelled: string[] = [];
  const stall = async (call: Parameters<FakeNode['draw']>[0]) => {
    call.signal.addEventListener('abort', () => cancelled.push('n1'));
    await busyWith(wakes.opened)(call);
  };
  const started = await startRouter([silent], { hedge: HEDGE, ...config });
  const { router } = started;
  await expect.poll(() => router.fleet.get('n1')?.link.connected).toBe(true);
  router.cost.observe('n1', WORK, 10);
  const joinIdle = async () => {
    await idle.start();
    cleanups.unshift(() => idle.stop());
    router.fleet.follow(joined(idle));
  };
  const ended = () => started.events.filter((event) => event.type === 'hedgeEnded').map(({ result }) => result);
  return { ...started, silent, idle, wakes, stall, cancelled, joinIdle, ended };
}

test('HIGH whose node falls silent is drawn on an idle one as well; the first answer counts, the other attempt is cancelled', async () => {
  const { generate, router, silent, idle, stall, cancelled, joinIdle, ended, events } = await startSilent();
  silent.draw = stall;
  const answer = generate({ requestId: 'r1', priority: HIGH });
  await expect.poll(() => silent.started).toEqual(['r1']);
  await joinIdle();
  expect((await answer).response).toMatchObject({ nodeId: 'n2', attempts: 2 });
  expect(idle.started).toEqual(['r1']);
  await expect.poll(() => cancelled).toEqual(['n1']);
  await expect.poll(() => router.leases.size).toBe(0);
  expect(ended()).toEqual(['won']);
  // Nothing is held against the silent node, and its slot is free.
  expect(events.filter((event) => event.type === 'attemptFailed')).toEqual([]);
  expect(router.fleet.get('n1')?.breaker.state).toBe('closed');
  await expect.poll(() => router.fleet.hasIdleBeyond(1)).toBe(true);
});

test('a node that wakes up first keeps its picture; the second attempt is cancelled and is no failure', async () => {
  const { generate, router, silent, idle, wakes, stall, joinIdle, ended } = await startSilent();
  silent.draw = stall;
  idle.draw = busyWith(new Promise(() => {}));
  const answer = generate({ requestId: 'r1', priority: HIGH });
  await expect.poll(() => silent.started).toEqual(['r1']);
  await joinIdle();
  await expect.poll(() => idle.started).toEqual(['r1']);
  wakes.open();
  expect((await answer).response.nodeId).toBe('n1');
  await expect.poll(ended).toEqual(['lost']);
  await expect.poll(() => router.leases.size).toBe(0);
});

test('a stream that falls silent half-way: each step is told once, in order, and the picture comes from one node', async () => {
  const { channel, silent, idle, stall, joinIdle, ended } = await startSilent();
  silent.betweenSteps = stall;
  const told: unknown[] = [];
  const request = generation.GenerateRequest.fromPartial({ prompt: 'x', requestId: 'r1', priority: HIGH });
  for await (const { event } of channel.serverStream(Service.generateStream, request)) {
    if (event?.$case === 'started') told.push(event.value);
    if (event?.$case === 'completed') told.push(event.value.nodeId);
    if (event?.$case !== 'step') continue;
    told.push(event.value.step);
    if (event.value.step === 1) await joinIdle();
  }
  expect(told).toEqual([{ nodeId: 'n1', attempt: 1, loadMs: 0 }, 1, 2, 'n2']);
  expect(idle.started).toEqual(['r1']);
  await expect.poll(ended).toEqual(['won']);
});

test('a long stream that falls silent at a step is drawn elsewhere after the time of steps, not of the whole', async () => {
  const { channel, router, silent, stall, joinIdle, events } = await startSilent();
  router.cost.observe('n1', { ...WORK, steps: 50 }, 4000);
  silent.betweenSteps = stall;
  const request = generation.GenerateRequest.fromPartial({ prompt: 'x', steps: 50, priority: HIGH });
  for await (const { event } of channel.serverStream(Service.generateStream, request)) {
    if (event?.$case === 'step' && event.value.step === 1) await joinIdle();
    if (event?.$case === 'completed') expect(event.value.nodeId).toBe('n2');
  }
  const [begun] = events.filter((event) => event.type === 'hedgeStarted');
  expect(begun?.silentMs).toBeLessThan(4000);
});

test('a node that loads the model, as it said it would, is not silent before it has had the time for that', async () => {
  const [loads, idle] = [new FakeNode('n1', { model: { ...FAKE_MODEL, loaded: false, loadMs: 400 } }), new FakeNode('n2')];
  const { channel, router, events } = await startRouter([loads], { hedge: HEDGE });
  await expect.poll(() => router.fleet.get('n1')?.link.connected).toBe(true);
  router.cost.observe('n1', WORK, 10);
  loads.draw = async () => {
    await idle.start();
    cleanups.unshift(() => idle.stop());
    router.fleet.follow(joined(idle));
    await systemClock.sleep(400);
  };
  const request = generation.GenerateRequest.fromPartial({ prompt: 'x', priority: HIGH });
  for await (const { event } of channel.serverStream(Service.generateStream, request)) {
    if (event?.$case === 'completed') expect(event.value.nodeId).toBe('n1');
  }
  expect(events.filter((event) => event.type === 'hedgeStarted')).toEqual([]);
});

test('when the second attempt fails the first one still counts, and the other way round', async () => {
  const broken = new StatusError({ code: Code.INTERNAL, reason: Reason.INTERNAL, message: 'broken' });
  const { generate, silent, idle, wakes, stall, joinIdle, ended } = await startSilent();
  silent.draw = stall;
  idle.draw = () => Promise.reject(broken);
  const first = generate({ requestId: 'r1', priority: HIGH });
  await expect.poll(() => silent.started).toEqual(['r1']);
  await joinIdle();
  await expect.poll(ended).toEqual(['failed']);
  wakes.open();
  expect((await first).response.nodeId).toBe('n1');

  const release = gate();
  const [again, breaks] = [gate(), gate()];
  silent.draw = async (call) => {
    again.open();
    await busyWith(breaks.opened)(call);
    throw broken;
  };
  idle.draw = busyWith(release.opened);
  // Whichever draws first: the other joins it.
  const second = generate({ requestId: 'r2', priority: HIGH });
  await again.opened;
  await expect.poll(() => idle.started.includes('r2')).toBe(true);
  breaks.open();
  release.open();
  expect((await second).response.nodeId).toBe('n2');
});

test.each([
  ['for NORMAL', {}, generation.Priority.NORMAL],
  ['when it is off', { hedge: { ...HEDGE, who: 'off' as const } }, HIGH],
  ['when the retry budget is spent', { retry: { maxNodes: 3, ratio: 0, floorCount: 0 } }, HIGH],
  ['when a request is tried on one node only', { retry: { ...CONFIG.retry, maxNodes: 1 } }, HIGH],
])('no second attempt %s', async (_, config, priority) => {
  const { generate, silent, idle, wakes, stall, joinIdle, events } = await startSilent(config);
  silent.draw = stall;
  const answer = generate({ priority });
  await expect.poll(() => silent.started.length).toBe(1);
  await joinIdle();
  await systemClock.sleep(150); // time for several wrong attempts
  wakes.open();
  expect((await answer).response.nodeId).toBe('n1');
  expect(idle.started).toEqual([]);
  expect(events.filter((event) => event.type === 'hedgeStarted')).toEqual([]);
});
