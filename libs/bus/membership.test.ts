import { beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from '../../test/support/manual-clock.js';
import { sampleBeat } from '../../test/support/sample-beat.js';

import { Membership } from './membership.js';
import type { MembershipEvent } from './membership-events.js';

let clock: ManualClock;
let events: MembershipEvent[];
let lagMs: number;
let rollCalls: number;
let mesh: Membership;

beforeEach(async () => {
  clock = new ManualClock();
  events = [];
  lagMs = 0;
  rollCalls = 0;
  mesh = new Membership({ clock, emit: (event) => events.push(event), lagMs: () => lagMs, rollCall: () => rollCalls++ });
  mesh.setConnected(true);
  await clock.advance(3000);
  mesh.sweep();
  events = [];
});

const seqs = new Map<string, number>();
function beat(nodeId: string, more: Parameters<typeof sampleBeat>[0] = {}): boolean {
  const seq = (seqs.get(nodeId) ?? 0) + 1;
  seqs.set(nodeId, seq);
  return mesh.accept(sampleBeat({ nodeId, seq, ...more }));
}
/** All of them beat once a second for this long, with a sweep after each. */
async function live(nodeIds: readonly string[], seconds: number): Promise<void> {
  for (let i = 0; i < seconds; i++) {
    await clock.advance(1000);
    for (const nodeId of nodeIds) beat(nodeId);
    mesh.sweep();
  }
}
const types = () => events.map((event) => event.type);
const stateOf = (nodeId: string) => mesh.get(nodeId)?.state;
async function silence(ms: number): Promise<void> {
  await clock.advance(ms);
  mesh.sweep();
}

describe('a single member', () => {
  it('joins with its first beat', () => {
    beat('a');
    expect(types()).toEqual(['memberJoined']);
    expect(stateOf('a')).toBe('alive');
  });

  it('is suspect after 3.3 s of silence, not before', async () => {
    beat('a');
    await silence(3300);
    expect(stateOf('a')).toBe('alive');
    await silence(1);
    expect(stateOf('a')).toBe('suspect');
    expect(types()).toEqual(['memberJoined', 'memberSuspected']);
  });

  it('is gone after 10 s, not before, and forgotten a minute later', async () => {
    beat('a');
    await silence(5000);
    await silence(5000);
    expect(stateOf('a')).toBe('suspect');
    await silence(1);
    expect(stateOf('a')).toBe('gone');
    await silence(60_000);
    expect(stateOf('a')).toBe('gone');
    await silence(1);
    expect(stateOf('a')).toBeUndefined();
    expect(types()).toEqual(['memberJoined', 'memberSuspected', 'memberGone', 'memberForgotten']);
  });

  it.each([
    ['suspect', [4000]],
    ['gone', [4000, 7000]],
  ] as const)('recovers from %s with a beat', async (from, silences) => {
    beat('a');
    for (const ms of silences) await silence(ms);
    expect(stateOf('a')).toBe(from);
    beat('a');
    expect(stateOf('a')).toBe('alive');
    expect(events.at(-1)).toMatchObject({ type: 'memberRecovered', from });
  });

  it('stays suspect while a gRPC stream vouches for it, and goes when that breaks', async () => {
    beat('a');
    mesh.noteReachable('a');
    await silence(4000);
    await silence(30_000);
    expect(stateOf('a')).toBe('suspect');
    mesh.noteUnreachable('a');
    await silence(1);
    expect(stateOf('a')).toBe('gone');
  });

  it('leaves at once, and a late beat of that life does not bring it back; a new life does', () => {
    const incarnation = '1000-aaaaaa';
    beat('a', { incarnation });
    expect(mesh.leave({ nodeId: 'a', incarnation })).toBe(true);
    expect(mesh.members.size).toBe(0);
    expect(beat('a', { incarnation })).toBe(false);
    expect(beat('a', { incarnation: '2000-aaaaaa', seq: 1 })).toBe(true);
    expect(types()).toEqual(['memberJoined', 'memberLeft', 'memberJoined']);
  });

  it('tells which aspects changed, and nothing when only progress did', () => {
    beat('a', { busyCount: 0 });
    beat('a', { busyCount: 1 });
    beat('a', { busyCount: 1, completedCount: 5, running: [{ requestId: 'r', step: 2, total: 8, remainingMs: 50 }] });
    beat('a', { busyCount: 1, draining: true, models: [] });
    expect(events.slice(1)).toMatchObject([
      { type: 'memberChanged', aspects: ['slots'] },
      { type: 'memberChanged', aspects: ['draining', 'models'] },
    ]);
  });
});

describe('order of beats', () => {
  it('an older seq changes nothing', () => {
    beat('a', { seq: 5, busyCount: 1 });
    expect(beat('a', { seq: 5, busyCount: 0 })).toBe(false);
    expect(beat('a', { seq: 4, busyCount: 0 })).toBe(false);
    expect(mesh.get('a')?.beat.busyCount).toBe(1);
  });

  it('a life that began on a clock set back takes over when the one before it is silent', async () => {
    beat('a', { incarnation: '2000-aaaaaa', seq: 900 });
    for (let seq = 1; seq <= 5; seq++) {
      await silence(1000);
      beat('a', { incarnation: '1000-bbbbbb', seq });
    }
    expect(types()).toEqual(['memberJoined', 'memberSuspected', 'memberRestarted']);
    expect(mesh.get('a')).toMatchObject({ state: 'alive', beat: { incarnation: '1000-bbbbbb' } });
  });

  it('and when the one before it has left', async () => {
    beat('a', { incarnation: '2000-aaaaaa' });
    mesh.leave({ nodeId: 'a', incarnation: '2000-aaaaaa' });
    expect(beat('a', { incarnation: '1000-bbbbbb', seq: 1 })).toBe(false);
    await silence(4000);
    expect(beat('a', { incarnation: '1000-bbbbbb', seq: 2 })).toBe(true);
  });

  it('a new incarnation overrides at seq 1, an old one never does', async () => {
    beat('a', { incarnation: '1000-aaaaaa', seq: 900 });
    expect(beat('a', { incarnation: '2000-aaaaaa', seq: 1 })).toBe(true);
    expect(beat('a', { incarnation: '1000-aaaaaa', seq: 901 })).toBe(false);
    expect(types()).toEqual(['memberJoined', 'memberRestarted']);
    expect(mesh.leave({ nodeId: 'a', incarnation: '1000-aaaaaa' })).toBe(false);
    expect(stateOf('a')).toBe('alive');
    await silence(1);
  });

  it('reports a second process under the same id once, after it has shown to live', () => {
    beat('a', { incarnation: '2000-aaaaaa' });
    for (let seq = 1; seq <= 20; seq++) beat('a', { incarnation: '1000-bbbbbb', seq });
    expect(types()).toEqual(['memberJoined', 'memberShadowed']);
  });

  it('a burst of held-back beats is not proof of life; the beat after it is', async () => {
    beat('a');
    await silence(8000);
    for (let i = 0; i < 6; i++) beat('a', { busyCount: 3 });
    expect(mesh.get('a')?.beat.busyCount).toBe(3); // the newest word counts as word
    mesh.sweep();
    expect(stateOf('a')).toBe('suspect');
    await clock.advance(900);
    beat('a');
    expect(stateOf('a')).toBe('alive');
  });

  it('a few changes at once in the middle of a life are proof of it', async () => {
    beat('a');
    await clock.advance(1000);
    for (let i = 0; i < 4; i++) beat('a', { busyCount: i });
    await silence(3300);
    expect(stateOf('a')).toBe('alive');
  });

  it('many beats in a row without a silence before them are life', async () => {
    beat('a');
    for (let i = 0; i < 500; i++) {
      await clock.advance(10);
      beat('a');
    }
    await silence(3240);
    expect(stateOf('a')).toBe('alive');
  });
});

describe('freezing', () => {
  it('holds everybody while NATS is away, however long, and forgets nobody', async () => {
    await live(['a', 'b'], 3);
    mesh.setConnected(false);
    await silence(120_000);
    expect([stateOf('a'), stateOf('b')]).toEqual(['alive', 'alive']);
    expect(types().slice(2)).toEqual(['membershipFrozen']);
  });

  it('calls the roll on return and judges after three intervals, not counting the time away', async () => {
    await live(['a', 'b'], 3);
    mesh.setConnected(false);
    await silence(60_000);
    rollCalls = 0;
    mesh.setConnected(true);
    expect(rollCalls).toBe(1);
    await silence(2999);
    expect(mesh.frozen).toBe(true);
    beat('a');
    await silence(1);
    expect(mesh.frozen).toBe(false);
    expect(stateOf('b')).toBe('alive');
    await silence(400); // b: 3.4 s of silence with a link
    expect([stateOf('a'), stateOf('b')]).toEqual(['alive', 'suspect']);
  });

  it('keeps everybody when more than half of three fall silent together', async () => {
    await live(['a', 'b', 'c'], 3);
    await live(['a'], 10);
    expect([stateOf('a'), stateOf('b'), stateOf('c')]).toEqual(['alive', 'alive', 'alive']);
    expect(types().filter((type) => type === 'membershipFrozen')).toHaveLength(1);
    expect(rollCalls).toBeGreaterThan(3);
  });

  it('suspects one of three, and two that fell silent one after the other', async () => {
    await live(['a', 'b', 'c'], 3);
    await live(['a', 'b'], 4);
    expect(stateOf('c')).toBe('suspect');
    await live(['a'], 4);
    expect(stateOf('b')).toBe('suspect');
    expect(types()).not.toContain('membershipFrozen');
  });

  it('does not freeze for two of two: there is no crowd to be deaf to', async () => {
    await live(['a', 'b'], 3);
    await silence(3400);
    expect([stateOf('a'), stateOf('b')]).toEqual(['suspect', 'suspect']);
  });

  it('thaws after a grace when most beat again', async () => {
    await live(['a', 'b', 'c'], 3);
    await live([], 5);
    expect(mesh.frozen).toBe(true);
    await live(['a', 'b'], 4);
    expect(mesh.frozen).toBe(false);
    expect([stateOf('a'), stateOf('b')]).toEqual(['alive', 'alive']);
    expect(stateOf('c')).not.toBe('alive');
  });

  it('does not freeze when gRPC has shown that the silent ones are dead', async () => {
    await live(['a', 'b', 'c'], 3);
    mesh.noteUnreachable('b');
    mesh.noteUnreachable('c');
    await live(['a'], 4);
    expect([stateOf('a'), stateOf('b'), stateOf('c')]).toEqual(['alive', 'suspect', 'suspect']);
  });

  it('gives up after a minute of mass silence, and does not freeze again for the same', async () => {
    await live(['a', 'b', 'c'], 3);
    await live(['a'], 80);
    expect([stateOf('a'), stateOf('b'), stateOf('c')]).toEqual(['alive', 'gone', 'gone']);
    expect(types().filter((type) => type === 'membershipFrozen')).toHaveLength(1);
  });

  it('a thousand members that die together freeze it; a fifth of them does not', async () => {
    const all = Array.from({ length: 1000 }, (_, i) => `n${i}`);
    await live(all, 2);
    await live(all.slice(200), 5);
    expect(mesh.frozen).toBe(false);
    expect(stateOf('n0')).toBe('suspect');
    await live([], 4);
    expect(mesh.frozen).toBe(true);
    expect(stateOf('n999')).toBe('alive');
  });
});

it('its own lag stretches the patience', async () => {
  beat('a');
  lagMs = 4000;
  await silence(7300);
  expect(stateOf('a')).toBe('alive');
  await silence(1);
  expect(stateOf('a')).toBe('suspect');
});

it('start() sweeps twice a second and stop() leaves no timer', async () => {
  beat('a');
  mesh.start();
  await clock.advance(3500);
  expect(stateOf('a')).toBe('suspect');
  mesh.stop();
  expect(clock.pendingCount).toBe(0);
});
