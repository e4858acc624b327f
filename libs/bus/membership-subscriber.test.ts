import { expect, test } from 'vitest';
import type { Clock } from '#core';
import { PlayedBus } from '../../test/support/played-bus.js';
import { sampleBeat } from '../../test/support/sample-beat.js';
import type { BusEvent } from './events.js';
import type { Membership } from './membership.js';
import { MembershipSubscriber } from './membership-subscriber.js';
import { ALL_BEATS, ALL_LEAVES, beatSubject, leaveSubject } from './subjects.js';

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Each beat takes a millisecond. */
function world() {
  const bus = new PlayedBus();
  const taken: string[] = [];
  const events: BusEvent[] = [];
  let nowMs = 0;
  const membership = {
    accept: ({ nodeId }: { nodeId: string }) => {
      nowMs += 1;
      if (nodeId === 'broken') throw new Error('a fault of our own');
      taken.push(nodeId);
    },
    leave: ({ nodeId }: { nodeId: string }) => taken.push(`${nodeId} left`),
    setConnected: () => {},
    start: () => {},
    stop: () => {},
  } as unknown as Membership;
  const clock = { now: () => nowMs } as Clock;
  const subscriber = new MembershipSubscriber({ bus, clock, membership, emit: (event) => events.push(event) });
  subscriber.start();
  const beat = (nodeId: string) => bus.deliver(beatSubject(nodeId), { ...sampleBeat(), nodeId }, ALL_BEATS);
  const leave = (nodeId: string) => bus.deliver(leaveSubject(nodeId), { nodeId, incarnation: '1000-aaaaaa' }, ALL_LEAVES);
  return { beat, leave, taken, events, subscriber };
}

test('what comes at once is taken in order, in turns that leave room for others', async () => {
  const { beat, leave, taken } = world();
  for (const id of ['a', 'b', 'c', 'd', 'e']) beat(id);
  leave('a');
  expect(taken).toEqual([]);
  await turn();
  expect(taken).toEqual(['a', 'b', 'c', 'd']);
  beat('f');
  await turn();
  expect(taken).toEqual(['a', 'b', 'c', 'd', 'e', 'a left', 'f']);
  beat('g');
  await turn();
  expect(taken.at(-1)).toBe('g');
});

test('a fault in one holds up none of the others', async () => {
  const { beat, taken, events } = world();
  for (const id of ['broken', 'b']) beat(id);
  await turn();
  expect(taken).toEqual(['b']);
  expect(events).toMatchObject([{ type: 'busHandlerFailed', subject: beatSubject('broken') }]);
});

test('nothing is taken after the end', async () => {
  const { beat, taken, subscriber } = world();
  beat('a');
  subscriber.stop();
  await turn();
  expect(taken).toEqual([]);
});
