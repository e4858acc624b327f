import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import type { node } from '#contracts';
import { Code, Reason } from '#core';
import { NO_PREEMPTION } from '#scheduling';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { Slot } from '../domain/slot.js';
import { AttachedRouters, attach } from './attach.js';

setFlagsFromString('--expose-gc');
const collectGarbage: () => void = runInNewContext('gc');

const hello: node.AttachRequest = { message: { $case: 'hello', value: { routerId: 'router-a' } } };
const bid: node.AttachRequest = {
  message: { $case: 'bid', value: { backlogCount: 1, rank: 2, leadMs: 0, slackMs: 5, priority: 2, costMs: 1000 } },
};

/** A node without a network: `call` attaches a router that sends what `request` yields. */
function start() {
  const clock = new ManualClock();
  const slot = new Slot({
    clock,
    grantTtlMs: 500,
    stagingWindowMs: 30,
    preemption: NO_PREEMPTION,
    firstLeaseId: 1n,
    onChange: () => {},
  });
  const routers = new AttachedRouters();
  const handler = attach({ slot, clock, emit: () => {}, routers });
  const call = (request: AsyncIterable<node.AttachRequest>, signal = new AbortController().signal) =>
    handler(
      { method: 'Attach', request, metadata: {}, deadlineAt: Number.POSITIVE_INFINITY, signal, peer: '', trailers: {}, notes: {} },
      { write: () => Promise.resolve() },
    );
  return { call, routers };
}

async function* helloThenSilence(): AsyncGenerator<node.AttachRequest> {
  yield hello;
  await new Promise<never>(() => {});
}

test('a router that attaches again ends its earlier stream at once, though that one is silent', async () => {
  const { call, routers } = start();
  const first = call(helloThenSilence());
  await expect.poll(() => routers.count, { timeout: 5000 }).toBe(1);
  const gone = new AbortController();
  const second = call(helloThenSilence(), gone.signal);
  await expect(first).rejects.toMatchObject({ code: Code.ABORTED, reason: Reason.CONNECTION_LOST });
  expect(routers.count).toBe(1);
  gone.abort(new Error('the router left'));
  await expect(second).rejects.toThrow('the router left');
  expect(routers.count).toBe(0);
});

test('a stream keeps nothing of the messages it has read', async () => {
  const { call } = start();
  const messageCount = 50_000;
  let keptBytes = 0;
  async function* bids(): AsyncGenerator<node.AttachRequest> {
    yield hello;
    yield bid;
    const heapBytes = () => {
      collectGarbage();
      return process.memoryUsage().heapUsed;
    };
    const before = heapBytes();
    for (let count = 0; count < messageCount; count++) yield bid;
    keptBytes = heapBytes() - before;
  }
  await call(bids());
  expect(keptBytes / messageCount).toBeLessThan(20);
});
