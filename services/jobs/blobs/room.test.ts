import { expect, test } from 'vitest';
import { Code, Reason } from '#core';
import { ManualClock } from '../../../test/support/manual-clock.js';
import { roomCheck } from './room.js';

const full = { code: Code.RESOURCE_EXHAUSTED, reason: Reason.STORE_FULL };

test('roomCheck() keeps the reserve free of what jobs were promised', async () => {
  const check = roomCheck({ store: { freeBytes: async () => 1000 }, reserveBytes: 300, clock: new ManualClock() });
  await check(700);
  await expect(check(701)).rejects.toMatchObject(full);
  await expect(check(701)).rejects.toThrow('1000 bytes are free, 701 are promised to jobs and 300 are kept in reserve');
});

test('roomCheck() refuses nothing where room is not known', async () => {
  await roomCheck({ store: { freeBytes: async () => undefined }, reserveBytes: 300, clock: new ManualClock() })(1e15);
});

test('roomCheck() asks the disk once a second, however many ask', async () => {
  const clock = new ManualClock();
  let askedCount = 0;
  let free = 1000;
  const freeBytes = async () => {
    askedCount++;
    return free;
  };
  const check = roomCheck({ store: { freeBytes }, reserveBytes: 300, clock });
  await Promise.all(Array.from({ length: 100 }, () => check(0)));
  free = 0;
  await clock.advance(999);
  await check(0);
  expect(askedCount).toBe(1);
  await clock.advance(1);
  await expect(check(0)).rejects.toMatchObject(full);
  expect(askedCount).toBe(2);
});

test('roomCheck() passes on that the disk does not answer, and asks again', async () => {
  const clock = new ManualClock();
  const answers = [Promise.reject(new Error('away')), Promise.resolve(1000)];
  const check = roomCheck({ store: { freeBytes: () => answers.shift() ?? Promise.resolve(0) }, reserveBytes: 0, clock });
  await expect(check(0)).rejects.toThrow('away');
  await clock.advance(1000);
  await check(0);
});
