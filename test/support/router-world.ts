/** A real router over fake nodes: real sockets between them, and no NATS. Nothing may be left behind by a test. */
import { expect } from 'vitest';
import type { BreakerEvent } from '#breaker';
import type { MembershipEvent } from '#bus';
import { generation } from '#contracts';
import type { StatusError } from '#core';
import { Channel, Server } from '#grpc';
import { systemClock } from '#runtime';
import { Access } from '../../services/router/access.js';
import type { RouterEvent } from '../../services/router/events.js';
import { createRouter, type RouterOptions } from '../../services/router/service.js';
import { FakeNode } from './fake-node.js';

export const Service = generation.ImageGenerationServiceService;
/** Run by `cleanUp`, last first. */
export const cleanups: (() => Promise<void> | void)[] = [];

/** To be given to afterEach. */
export async function cleanUp(): Promise<void> {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
}

export const room = (minCount: number) => ({ perSlotCount: 0, minCount, classRatio: { high: 1, normal: 1, low: 1 } });

export const CONFIG: RouterOptions['config'] = {
  routerId: 'router',
  zone: '',
  cacheBytes: 0,
  order: { shares: { high: 0.6, normal: 0.3, low: 0.1 }, promoteAfterMs: 60_000, patienceFactor: 3 },
  queue: { limits: room(100), timeoutMs: 10_000, noNodesWaitMs: 300 },
  execution: { factor: 5, floorMs: 5000, capMs: 60_000, loadTimeoutMs: 60_000 },
  cost: { priorMs: 1000 },
  slowness: { slowRatio: 1.5, quarantineRatio: 3 },
  retry: { maxNodes: 3, ratio: 0.2, floorCount: 3 },
  hedge: { who: 'off', factor: 2, floorMs: 1000 },
  breaker: { openMs: 30_000 },
  link: { connectTimeoutMs: 10_000, keepaliveMs: 1000 },
};

export async function startRouter(nodes: readonly FakeNode[], config: Partial<RouterOptions['config']> = {}) {
  for (const node of nodes) {
    await node.start();
    cleanups.push(() => node.stop());
  }
  const events: (RouterEvent | BreakerEvent)[] = [];
  const router = createRouter({
    config: { ...CONFIG, ...config },
    clock: systemClock,
    random: Math.random,
    emit: (event) => void events.push(event),
    access: new Access({ clock: systemClock, emit: () => {}, needsToken: false, anonymousRatePerSec: 0 }),
    evidence: () => {},
  });
  for (const node of nodes) router.fleet.follow(joined(node));
  const server = new Server({ clock: systemClock, emit: () => {}, maxRequestBytes: 1 << 20 });
  server.add(Service, router.handlers);
  const channel = new Channel(`127.0.0.1:${await server.listen('127.0.0.1:0')}`, { clock: systemClock });
  cleanups.push(async () => {
    channel.close();
    await server.close();
    router.close();
    // Whatever a test did, nothing may be left behind.
    expect(router.leases.size).toBe(0);
    expect(router.executor.liveCount).toBe(0);
    expect(router.dispatcher.waitingCount).toBe(0);
  });
  const generate = (fields: Partial<generation.GenerateRequest> = {}, options = {}) =>
    channel.unary(Service.generate, generation.GenerateRequest.fromPartial({ prompt: 'a red circle', ...fields }), options);
  return { router, channel, generate, events };
}

export function joined(node: FakeNode): MembershipEvent & { type: 'memberJoined' } {
  return { type: 'memberJoined', member: { nodeId: node.nodeId, state: 'alive', beat: node.beat, joinedAt: 0, heardAt: 0 } };
}

export function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

export const busyWith = (opened: Promise<void>) => (call: { signal: AbortSignal }) =>
  new Promise<void>((resolve, reject) => {
    call.signal.addEventListener('abort', () => reject(call.signal.reason));
    void opened.then(resolve);
  });

/** What a request of the tests costs. */
export const WORK = { model: 'fake', width: 128, height: 128, steps: 4, imageCount: 1, guidanceScale: 0 };

/** One slot that is busy until `finish`; what comes meanwhile waits. */
export async function startFull(config: Partial<RouterOptions['config']> = {}) {
  const node = new FakeNode('n1');
  const release = gate();
  node.draw = busyWith(release.opened);
  const started = await startRouter([node], config);
  const running = started.generate({ requestId: 'running' });
  await expect.poll(() => node.started).toEqual(['running']);
  /** Resolves when the request waits; its outcome is for later. */
  const wait = async (fields: Partial<generation.GenerateRequest>, options = {}) => {
    const before = started.router.dispatcher.waitingCount;
    const outcome = started.generate(fields, options).then(
      () => 'drawn',
      (error: StatusError) => error.reason,
    );
    await expect.poll(() => started.router.dispatcher.waitingCount).toBe(before + 1);
    return { outcome };
  };
  const finish = async () => {
    release.open();
    await running;
  };
  return { ...started, node, wait, finish };
}
