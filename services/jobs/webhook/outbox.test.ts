import { expect, test } from 'vitest';
import { type Due, Outbox } from './outbox.js';

/** An outbox whose sendings end when told, by the event's id. */
function outboxOf({ maxCount = 4, maxPerReceiverCount = 2 } = {}) {
  const began: string[] = [];
  const faults: unknown[] = [];
  const ends = new Map<string, { resolve: () => void; reject: (error: Error) => void }>();
  const outbox = new Outbox<Due>({
    send: (due, signal) =>
      new Promise((resolve, reject) => {
        began.push(due.eventId);
        ends.set(due.eventId, { resolve, reject });
        signal.addEventListener('abort', () => reject(signal.reason));
      }),
    onFailed: (_, error) => faults.push(error),
    maxCount,
    maxPerReceiverCount,
  });
  const take = (eventId: string, host = 'a', tenant = 't') => outbox.take({ eventId, tenant, url: `http://${host}/${eventId}` });
  const end = async (eventId: string) => {
    ends.get(eventId)?.resolve();
    await new Promise(setImmediate);
  };
  return { outbox, began, faults, ends, take, end };
}

test('one receiver has no more than its share under way; others do not wait for it', async () => {
  const { outbox, began, take, end } = outboxOf();
  for (const id of ['a1', 'a2', 'a3', 'a4']) take(id, 'a');
  expect(began).toEqual(['a1', 'a2']);
  take('b1', 'b');
  expect(began).toEqual(['a1', 'a2', 'b1']);
  expect(outbox).toMatchObject({ sendingCount: 3, waitingCount: 2 });
  await end('a2');
  expect(began).toEqual(['a1', 'a2', 'b1', 'a3']);
});

test('when all places are taken, tenants take turns, and receivers within a tenant', async () => {
  const { began, take, end } = outboxOf({ maxCount: 1 });
  take('first', 'x', 'big');
  for (const host of ['a', 'b', 'c']) for (const n of [1, 2]) take(`big-${host}${n}`, host, 'big');
  take('small-1', 'z', 'small');
  take('small-2', 'z', 'small');
  for (let n = 0; n < 9; n++) await end(began.at(-1) ?? '');
  expect(began).toEqual(['first', 'big-a1', 'small-1', 'big-b1', 'small-2', 'big-c1', 'big-a2', 'big-b2', 'big-c2']);
});

test("tenants with the same receiver do not wait for each other's", () => {
  const { began, take } = outboxOf({ maxPerReceiverCount: 1 });
  take('1', 'a', 't1');
  take('2', 'a', 't1');
  take('3', 'a', 't2');
  expect(began).toEqual(['1', '3']);
});

test('what is here already is not taken twice; after its end it may come again', async () => {
  const { began, take, end } = outboxOf();
  take('1');
  take('1');
  expect(began).toEqual(['1']);
  await end('1');
  take('1');
  expect(began).toEqual(['1', '1']);
});

test('a sending that fails is reported and makes room', async () => {
  const { outbox, began, faults, ends, take } = outboxOf({ maxCount: 1 });
  take('1');
  take('2');
  ends.get('1')?.reject(new Error('NATS is away'));
  await expect.poll(() => began).toEqual(['1', '2']);
  expect(faults).toEqual([new Error('NATS is away')]);
  expect(outbox.sendingCount).toBe(1);
});

test('drain() begins nothing more and waits for what is under way; close() cuts it off', async () => {
  const { outbox, began, take, end } = outboxOf({ maxCount: 2 });
  for (const id of ['1', '2', '3']) take(id);
  const drained = outbox.drain();
  await end('1');
  take('4');
  expect(began).toEqual(['1', '2']);
  outbox.close();
  await drained;
  expect(outbox.sendingCount).toBe(0);
});

test('many under way are no leak of listeners, of which Node would warn', async () => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => warnings.push(warning);
  process.on('warning', onWarning);
  const { outbox, began, take } = outboxOf({ maxCount: 20 });
  for (let n = 0; n < 20; n++) take(`e${n}`, `host-${n}`);
  await new Promise(setImmediate); // it warns in the next turn
  process.off('warning', onWarning);
  outbox.close();
  expect([began.length, warnings]).toEqual([20, []]);
});
