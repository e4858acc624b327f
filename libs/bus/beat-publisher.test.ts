import { beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from '../../test/support/manual-clock.js';
import { PlayedBus } from '../../test/support/played-bus.js';
import { sampleBeat } from '../../test/support/sample-beat.js';
import type { Beat } from './beat.js';
import { BeatPublisher } from './beat-publisher.js';

let clock: ManualClock;
let bus: PlayedBus;
let busyCount: number;
const beats = () => bus.published.filter((m) => m.subject.endsWith('.beat')).map((m) => JSON.parse(m.text) as Beat);
const publisher = (random = () => 0.5) => new BeatPublisher({ bus, clock, random, read: () => ({ ...sampleBeat(), busyCount }) });

beforeEach(() => {
  clock = new ManualClock();
  bus = new PlayedBus();
  busyCount = 0;
});

describe('BeatPublisher', () => {
  it('beats at once and then every second, seq rising by one', async () => {
    publisher().start();
    await clock.advance(3);
    expect(beats()).toHaveLength(1);
    await clock.advance(999);
    expect(beats()).toHaveLength(1);
    await clock.advance(1);
    expect(beats().map((beat) => beat.seq)).toEqual([1, 2]);
    expect(bus.published[0]?.subject).toBe('dmesh.v1.node.gpu0.beat');
  });

  it.each([
    [() => 0, 900],
    [() => 0.999999, 1100],
  ])('spreads the second by a tenth to either side', async (random, gapMs) => {
    publisher(random).start();
    await clock.advance(3 + gapMs - 1);
    expect(beats()).toHaveLength(1);
    await clock.advance(1);
    expect(beats()).toHaveLength(2);
  });

  it('changed() beats within 3 ms, once for many changes, with the newest state', async () => {
    const node = publisher();
    node.start();
    await clock.advance(500);
    for (busyCount = 1; busyCount < 5; busyCount++) node.changed();
    await clock.advance(3);
    expect(beats().map((beat) => beat.busyCount)).toEqual([0, 5]);
    await clock.advance(999);
    expect(beats()).toHaveLength(2); // the second counts from the last beat
  });

  it('answers the roll call', async () => {
    publisher().start();
    await clock.advance(500);
    bus.handlers.get('dmesh.v1.roll-call')?.({ subject: '', data: new Uint8Array(), respond: () => false });
    await clock.advance(3);
    expect(beats()).toHaveLength(2);
  });

  it('says nothing while NATS is away, keeps nothing for later, and beats at once on its return', async () => {
    publisher().start();
    await clock.advance(500);
    bus.link(false);
    await clock.advance(20_000);
    expect(beats()).toHaveLength(1);
    bus.link(true);
    await clock.advance(3);
    expect(beats().map((beat) => beat.seq)).toEqual([1, 2]);
  });

  it('stop() leaves with its incarnation, once, and ends everything', async () => {
    const node = publisher();
    node.start();
    await clock.advance(500);
    await Promise.all([node.stop(), node.stop()]);
    node.changed();
    await clock.advance(5000);
    expect(beats()).toHaveLength(1);
    expect(bus.published.at(-1)).toEqual({
      subject: 'dmesh.v1.node.gpu0.leave',
      text: JSON.stringify({ nodeId: 'gpu0', incarnation: sampleBeat().incarnation }),
    });
    expect(bus.published).toHaveLength(2);
    expect([clock.pendingCount, bus.handlers.size, bus.listeners.size]).toEqual([0, 0, 0]);
  });

  it('stop() before start() says nothing', async () => {
    await publisher().stop();
    expect(bus.published).toEqual([]);
  });
});
