import path from 'node:path';
import { defineConfig } from 'vitest/config';

const root = import.meta.dirname;
// '#core' and its siblings point at the built files for Node; tests read the sources instead.
const alias = [{ find: /^#([a-z-]+)$/, replacement: `${path.join(root, 'libs')}/$1/index.ts` }];

export default defineConfig({
  test: {
    projects: [
      {
        resolve: { alias },
        test: { name: 'unit', include: ['libs/**/*.test.ts', 'services/**/*.test.ts'], testTimeout: 10_000 },
      },
      {
        resolve: { alias },
        test: {
          name: 'mesh',
          include: ['test/{contract,mesh,faults,model}/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          maxWorkers: 2,
          // Real processes and real deadlines: a shared machine that stalls for half a second is not a fault
          // of the mesh. What fails twice is one.
          retry: 1,
          // Whole processes with real clocks: after the quick tests, not beside them.
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
