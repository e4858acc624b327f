import path from 'node:path';
import { defineConfig } from 'vitest/config';

const root = import.meta.dirname;
// '#core' and its siblings point at the built files for Node; tests read the sources instead.
const alias = [{ find: /^#([a-z-]+)$/, replacement: `${path.join(root, 'libs')}/$1/index.ts` }];

/** Real servers and real deadlines: a shared machine that stalls for a moment is no fault of ours. What fails twice is one. */
const retry = 1;
/** What is to come about is waited for longer than a second; what never comes is found out all the same. */
const expect = { poll: { timeout: 10_000 } };
/** Messages say what came: they are all that CI's last lines have of it. */
const chaiConfig = { truncateThreshold: 1000 };

export default defineConfig({
  test: {
    projects: [
      {
        resolve: { alias },
        test: { name: 'unit', include: ['libs/**/*.test.ts', 'services/**/*.test.ts'], testTimeout: 20_000, expect, chaiConfig, retry },
      },
      {
        resolve: { alias },
        test: {
          name: 'mesh',
          include: ['test/{contract,mesh,faults,model}/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          maxWorkers: 2,
          expect,
          chaiConfig,
          retry,
          // Whole processes with real clocks: after the quick tests, not beside them.
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
