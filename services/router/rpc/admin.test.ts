import { expect, test } from 'vitest';
import { admin } from '#contracts';
import { Code, Reason } from '#core';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { sampleBeat } from '../../../test/support/sample-beat.js';
import { adminHandlers } from './admin.js';

test('a mesh that is described in many turns is one message, by id; others get their turns meanwhile', async () => {
  const clock = new ManualClock();
  const ids = Array.from({ length: 250 }, (_, n) => `n${String(n).padStart(3, '0')}`);
  const node = (nodeId: string) => ({
    nodeId,
    beat: { ...sampleBeat(), nodeId },
    member: { state: 'alive', heardAt: clock.now() - 1700 },
    link: { connected: true, busyCount: 1 },
    breaker: { state: 'closed' },
  });
  const { listNodes, watchMesh } = adminHandlers({
    bus: {} as never,
    clock,
    cost: { pace: () => 1.5 } as never,
    dispatcher: { waitingCount: 3, waiting: [] } as never,
    fleet: [...ids].reverse().map(node) as never,
    runningCount: () => 2,
    membershipFrozen: () => true,
    rates: { read: () => admin.Rates.fromPartial({ answersPerSecond: 7 }) } as never,
    routes: {} as never,
    routeStore: {} as never,
  });
  let turns = 0;
  const asked = listNodes({} as never) as Promise<Buffer>;
  setImmediate(() => turns++);
  const { nodes } = admin.ListNodesResponse.decode(await asked);
  expect(turns).toBe(1);
  expect(nodes.map(({ nodeId }) => nodeId)).toEqual(ids);
  expect(nodes[249]).toMatchObject({ liveness: admin.Liveness.ALIVE, connected: true, busyCount: 1, costRatio: 1.5, sinceBeatMs: 1700 });
  const watched = new AbortController();
  const pictures: Buffer[] = [];
  const write = async (bytes: unknown) => {
    pictures.push(bytes as Buffer);
    watched.abort();
  };
  await watchMesh({ signal: watched.signal } as never, { write });
  const picture = admin.MeshSnapshot.decode(pictures[0] as Buffer);
  expect(picture.nodes.map(({ nodeId, sinceBeatMs }) => [nodeId, sinceBeatMs])).toEqual(ids.map((id) => [id, 1500]));
  expect(picture).toMatchObject({ queuedCount: 3, runningCount: 2, membershipFrozen: true, rates: { answersPerSecond: 7 } });
});

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
