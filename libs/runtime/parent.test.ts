import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { watchParent } from './parent.js';

let other: ChildProcess;
beforeEach(() => {
  other = spawn(process.execPath, ['-e', 'setInterval(() => {}, 60000)'], { stdio: 'ignore' });
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
});
afterEach(() => {
  vi.useRealTimers();
  other.kill('SIGKILL');
});

async function end(): Promise<void> {
  other.kill('SIGKILL');
  await once(other, 'exit');
}

test('watchParent() notices within half a second, once, and looks no more', async () => {
  const onGone = vi.fn();
  watchParent(Number(other.pid), onGone);
  vi.advanceTimersByTime(5000);
  expect(onGone).not.toHaveBeenCalled();
  await end();
  vi.advanceTimersByTime(500);
  expect(onGone).toHaveBeenCalledOnce();
  expect(vi.getTimerCount()).toBe(0);
});

test('watchParent() knows a parent of its own', () => {
  const stop = watchParent(process.ppid, () => expect.fail('the parent is alive'));
  vi.advanceTimersByTime(5000);
  stop();
  expect(vi.getTimerCount()).toBe(0);
});

test('watchParent() stops when told', async () => {
  const stop = watchParent(Number(other.pid), () => expect.fail('nobody asks any more'));
  stop();
  await end();
  vi.advanceTimersByTime(5000);
  expect(vi.getTimerCount()).toBe(0);
});

test.each([0, -1, 1.5, Number.NaN])('watchParent(%d) watches nobody', (pid) => {
  watchParent(pid, () => expect.fail('nobody to outlive'));
  expect(vi.getTimerCount()).toBe(0);
});
