import { expect, test } from 'vitest';
import { Reason } from '#core';
import { Bounds } from './bounds.js';

const MiB = 1024 ** 2;
const none = { queued: 0, running: 0, succeeded: 0, failed: 0, cancelled: 0, expired: 0 };

function world(maxStoredBytes: number) {
  const known = { counts: none, storedBytes: 0, ofTenant: { active: 0, storedBytes: 0 } };
  const bounds = new Bounds({
    index: {
      get counts() {
        return known.counts;
      },
      get storedBytes() {
        return known.storedBytes;
      },
      recordBytes: 0,
      waitingCount: () => 0,
      activeCount: () => known.ofTenant.active,
      tenantStoredBytes: () => known.ofTenant.storedBytes,
    },
    refuseWhenFull: async () => {},
    maxWaitingCount: 1000,
    maxStoredBytes,
    maxRecordBytes: 1 << 30,
  });
  return { known, submit: (count: number) => bounds.within('acme', count, async () => 'accepted') };
}
const tooMany = { reason: Reason.TOO_MANY_BYTES };

test('bytes that a tenant’s jobs will take count as those that are kept, also while they are being accepted', async () => {
  const { known, submit } = world(10 * MiB);
  await expect(submit(6)).rejects.toMatchObject(tooMany);
  const both = await Promise.allSettled([submit(3), submit(3)]);
  expect(both.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
  known.ofTenant = { active: 3, storedBytes: 2 * MiB };
  expect(await submit(1)).toBe('accepted');
  await expect(submit(2)).rejects.toMatchObject(tooMany);
});

test('what jobs came to here says what the next will take', async () => {
  const { known, submit } = world(10 * MiB);
  known.counts = { ...none, succeeded: 100 };
  known.storedBytes = 100 * 0.5 * MiB;
  expect(await submit(20)).toBe('accepted');
  await expect(submit(21)).rejects.toMatchObject(tooMany);
});
