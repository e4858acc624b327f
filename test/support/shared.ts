/**
 * What the tests of a file share because it takes long to start. It is started before the first test; a test that fails
 * takes it with it, so that its next try, and the tests after it, begin on a fresh one.
 */
import { afterAll, afterEach, beforeEach } from 'vitest';

/** `stop` also ends what a `start` that failed has left. */
export function useShared(start: () => Promise<unknown>, stop: () => Promise<unknown>): void {
  let started = false;
  const drop = async () => {
    if (!started) return;
    started = false;
    await stop();
  };
  beforeEach(async () => {
    if (started) return;
    started = true;
    await start();
  });
  afterEach(async ({ task }) => {
    if (task.result?.state === 'fail') await drop();
  });
  afterAll(drop);
}
