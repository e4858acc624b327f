import { expect, test } from 'vitest';
import { WaitQueue } from './wait-queue.js';

const entry = (arrival: number, model = 'm') => ({ arrival, model });

test('first come, first served', () => {
  const queue = new WaitQueue<{ arrival: number; model: string }>();
  const entries = [1, 2, 3].map((n) => entry(n));
  for (const item of entries) queue.add(item);
  expect([...queue]).toEqual(entries);
  expect(queue.head).toBe(entries[0]);
});

test('a request that comes back regains its place', () => {
  const queue = new WaitQueue<{ arrival: number; model: string }>();
  const entries = [1, 2, 3, 4].map((n) => entry(n));
  for (const item of entries) queue.add(item);
  const second = entries[1];
  if (!second) throw new Error('no entry');
  expect(queue.remove(second)).toBe(true);
  expect(queue.remove(second)).toBe(false);
  queue.add(second);
  expect([...queue]).toEqual(entries);
  expect(queue.position(second)).toBe(2);
});

test('first() skips what does not fit and leaves it waiting', () => {
  const queue = new WaitQueue<{ arrival: number; model: string }>();
  const [a, b] = [entry(1, 'a'), entry(2, 'b')];
  queue.add(a);
  queue.add(b);
  expect(queue.first((item) => item.model === 'b')).toBe(b);
  expect(queue.size).toBe(2);
});

test('the order holds over random departures and returns', () => {
  const seed = 20260101;
  let state = seed;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const queue = new WaitQueue<{ arrival: number; model: string }>();
  const away: { arrival: number; model: string }[] = [];
  let arrivals = 0;
  for (let round = 0; round < 5000; round++) {
    const dice = random();
    if (dice < 0.5) queue.add(entry(++arrivals));
    else if (dice < 0.8 && queue.size > 0) {
      const item = [...queue][Math.floor(random() * queue.size)];
      if (item && queue.remove(item)) away.push(item);
    } else if (away.length > 0) {
      const [item] = away.splice(Math.floor(random() * away.length), 1);
      if (item) queue.add(item);
    }
  }
  const order = [...queue].map((item) => item.arrival);
  expect(order, `seed ${seed}`).toEqual([...order].sort((x, y) => x - y));
  expect(order.length + away.length, `seed ${seed}`).toBe(arrivals);
});
