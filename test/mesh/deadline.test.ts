/** A caller's time is its own: what cannot be had in time ends in time, says why, and holds nothing. */
import { afterEach, expect, test } from 'vitest';
import type { MeshError } from '#client';
import { Code, Reason } from '#core';
import { systemClock } from '#runtime';
import { useMesh } from '../support/test-mesh.js';

const QUEUE_TIMEOUT_MS = 1500;
const LONG = { prompt: '[step=200ms]', steps: 30, width: 64, height: 64 };
const SHORT = { prompt: '[step=1ms]', steps: 1, width: 64, height: 64 };

const mesh = useMesh({ nodes: 1, env: { router: { DMESH_ROUTER_QUEUE_TIMEOUT: `${QUEUE_TIMEOUT_MS}ms` } } });

const busy = new Set<AbortController>();
afterEach(() => {
  for (const controller of busy) controller.abort();
  busy.clear();
});

/** Occupies the only slot until the test ends. */
async function occupy(): Promise<void> {
  const controller = new AbortController();
  busy.add(controller);
  mesh()
    .client.generate(LONG, { signal: controller.signal })
    .catch(() => {});
  await expect.poll(async () => (await mesh().figures()).sum('dmesh_router_running')).toBe(1);
}

async function failure(promise: Promise<unknown>): Promise<{ error: MeshError; tookMs: number }> {
  const startedAt = systemClock.now();
  const error = await promise.then(
    () => expect.fail('expected a failure'),
    (thrown) => thrown,
  );
  return { error, tookMs: systemClock.now() - startedAt };
}

test('a request that waits too long in the queue: QUEUE_TIMEOUT with its place and how long it waited', async () => {
  await occupy();
  const [first, second] = [mesh().client.generate(SHORT), mesh().client.generate(SHORT)];
  const answers = await Promise.all([failure(first), failure(second)]);
  for (const { error, tookMs } of answers) {
    expect(error).toMatchObject({ code: Code.DEADLINE_EXCEEDED, reason: Reason.QUEUE_TIMEOUT });
    expect(Number(error.details.metadata?.waited_ms)).toBeGreaterThanOrEqual(QUEUE_TIMEOUT_MS - 10);
    expect(tookMs).toBeGreaterThanOrEqual(QUEUE_TIMEOUT_MS - 10);
  }
  expect(answers.map(({ error }) => error.details.metadata?.position)).toContain('1');
  expect(answers.map(({ error }) => error.details.metadata?.position)).not.toContain('0');
});

test("the caller's own deadline passes in the queue: told before it, with the reason", async () => {
  await occupy();
  const { error, tookMs } = await failure(mesh().client.generate(SHORT, { timeoutMs: 800 }));
  expect(error).toMatchObject({ code: Code.DEADLINE_EXCEEDED, reason: Reason.QUEUE_TIMEOUT });
  expect(error.details.metadata?.position).toBe('1');
  expect(tookMs).toBeLessThan(QUEUE_TIMEOUT_MS);
});

test("the caller's deadline passes while its picture is drawn: DEADLINE, and the slot is free within a step", async () => {
  const { error, tookMs } = await failure(mesh().client.generate(LONG, { timeoutMs: 700 }));
  expect(error).toMatchObject({ code: Code.DEADLINE_EXCEEDED, reason: Reason.DEADLINE });
  expect(tookMs).toBeLessThan(2000); // of 6 s
  const freeFrom = systemClock.now();
  await mesh().client.generate(SHORT, { timeoutMs: 5000 });
  expect(systemClock.now() - freeFrom).toBeLessThan(2000);
});

test('a stream that waits is told its place, and its deadline ends it the same way', async () => {
  await occupy();
  const places: number[] = [];
  const onProgress = (progress: { kind: string; position?: number }) =>
    void (progress.kind === 'queued' && places.push(progress.position ?? 0));
  const { error } = await failure(mesh().client.generate(SHORT, { timeoutMs: 1200, onProgress }));
  expect(error).toMatchObject({ code: Code.DEADLINE_EXCEEDED, reason: Reason.QUEUE_TIMEOUT });
  expect(places).toEqual([1]);
});

test('a deadline that has passed before it came is no work for anybody', async () => {
  const before = (await mesh().figures(mesh().node('node-1'))).sum('dmesh_node_draws_total');
  const { error } = await failure(mesh().client.generate(SHORT, { timeoutMs: 0 }));
  expect(error.code).toBe(Code.DEADLINE_EXCEEDED);
  await mesh().quiet();
  expect((await mesh().figures(mesh().node('node-1'))).sum('dmesh_node_draws_total')).toBe(before);
});
