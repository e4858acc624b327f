import { expect, test } from 'vitest';
import { Code, Reason } from '#core';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { adminHandlers } from './admin.js';

test('what a node says when it does not obey reaches the operator, as no fault of the request', async () => {
  const { drain } = adminHandlers({
    bus: { request: async () => Buffer.from('{"error":"no such action"}') } as never,
    clock: new ManualClock(),
    cost: {} as never,
    dispatcher: {} as never,
    fleet: { get: () => ({}) } as never,
    runningCount: () => 0,
    membershipFrozen: () => false,
    rates: {} as never,
    routes: {} as never,
    routeStore: {} as never,
  });
  await expect(drain({ request: { nodeId: 'n1' } } as never)).rejects.toMatchObject({
    code: Code.INTERNAL,
    reason: Reason.INTERNAL,
    message: 'n1: no such action',
  });
});
