import { expect, test } from 'vitest';
import { parseGpus } from './gpus.js';

test('parseGpus() reads what nvidia-smi -L prints and leaves MIG lines out', () => {
  const listing = [
    'GPU 0: NVIDIA H200 (UUID: GPU-1b2c3d4e-0000-1111-2222-333344445555)',
    '  MIG 1g.18gb     Device  0: (UUID: MIG-aaaa)',
    'GPU 1: NVIDIA GeForce RTX 4090 (UUID: GPU-ffff)',
    '',
  ].join('\n');
  expect(parseGpus(listing)).toEqual([
    { index: 0, name: 'NVIDIA H200', uuid: 'GPU-1b2c3d4e-0000-1111-2222-333344445555' },
    { index: 1, name: 'NVIDIA GeForce RTX 4090', uuid: 'GPU-ffff' },
  ]);
});

test.each(['', 'No devices found.\n'])('parseGpus() finds none in %j', (listing) => {
  expect(parseGpus(listing)).toEqual([]);
});
