/** Work nobody waits for leaves the GPU within one denoising step, and the queue at once. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { expect, test } from 'vitest';
import type { MeshClient, Progress } from '#client';
import { Code, Reason } from '#core';
import { packageRoot, systemClock } from '#runtime';
import { useMesh } from '../support/test-mesh.js';

const STEP_MS = 200;
/** Noticing and telling over three processes of a busy machine. */
const SLACK_MS = 800;
/** 4 s in all: a slot that is free much earlier was freed by the cancel. */
const LONG = { prompt: `[step=${STEP_MS}ms]`, steps: 20, width: 64, height: 64 };
const SHORT = { prompt: '[step=1ms]', steps: 1, width: 64, height: 64 };

const mesh = useMesh({ nodes: 1 });

/** A picture in work: `started` resolves with its first step. */
function begin(client: MeshClient, request: typeof LONG) {
  const cancel = new AbortController();
  const kinds: Progress['kind'][] = [];
  let onKind = () => {};
  const answer = client.generate(request, {
    signal: cancel.signal,
    onProgress: ({ kind }) => {
      kinds.push(kind);
      onKind();
    },
  });
  answer.catch(() => {}); // looked at by the test, if at all
  const reached = (kind: Progress['kind']) =>
    new Promise<void>((resolve, reject) => {
      onKind = () => kinds.includes(kind) && resolve();
      onKind();
      answer.catch(reject);
    });
  return { answer, reached, cancel: () => cancel.abort() };
}

const waiting = async () => (await mesh().figures()).sum('dmesh_router_queue_depth');
const running = async () => (await mesh().figures()).sum('dmesh_router_running');
const drawn = async () => (await mesh().figures(mesh().node('node-1'))).by('dmesh_node_draws_total', 'reason');

test('a cancelled picture frees its slot within one step: the next in line starts', async () => {
  const { client } = mesh();
  const long = begin(client, LONG);
  await long.reached('step');
  const next = begin(client, SHORT);
  await expect.poll(waiting).toBe(1);
  const cancelledAt = systemClock.now();
  long.cancel();
  await next.reached('step');
  const freeMs = systemClock.now() - cancelledAt;
  await expect(long.answer).rejects.toMatchObject({ code: Code.CANCELLED, reason: Reason.CANCELLED });
  await next.answer;
  process.stdout.write(
    `a cancel freed the slot for the next request's first step after ${freeMs.toFixed(0)} ms, one step is ${STEP_MS} ms\n`,
  );
  expect(freeMs).toBeLessThan(STEP_MS + SLACK_MS);
});

test('the engine itself stops within one step, and goes on living', async () => {
  const { client } = mesh();
  const node = mesh().node('node-1');
  const before = { pid: mesh().enginePid('node-1'), stops: stops(node.lines).length };
  const long = begin(client, LONG);
  await long.reached('step');
  long.cancel();
  await expect.poll(() => stops(node.lines).length).toBe(before.stops + 1);
  const { took_ms: tookMs, killed } = stops(node.lines).at(-1) ?? {};
  expect(killed).toBe(false);
  expect(tookMs).toBeLessThan(STEP_MS + SLACK_MS);
  expect(mesh().enginePid('node-1')).toBe(before.pid);
});

function stops(lines: readonly string[]): { took_ms?: number; killed?: boolean }[] {
  return lines.filter((line) => line.includes('"request taken off the engine"')).map((line) => JSON.parse(line));
}

test('a cancelled request that waits disappears and is never drawn', async () => {
  const { client } = mesh();
  const long = begin(client, LONG);
  await long.reached('step');
  const [first, second] = [begin(client, SHORT), begin(client, SHORT)];
  await expect.poll(waiting).toBe(2);
  const before = await drawn();
  first.cancel();
  second.cancel();
  await expect.poll(waiting).toBe(0);
  expect(await running()).toBe(1);
  await expect(first.answer).rejects.toMatchObject({ code: Code.CANCELLED });
  long.cancel();
  await mesh().quiet();
  expect((await drawn()).OK ?? 0).toBe(before.OK ?? 0);
});

test.each(['SIGKILL', 'SIGINT'] as const)('a client process ended by %s: its picture is taken off the GPU', async (signal) => {
  const cli = startCli(['generate', LONG.prompt, '--steps', '20', '--size', '64x64', '-o', path.join(packageRoot, '.cache/never.png')]);
  const ended = once(cli, 'close');
  await expect.poll(running, { timeout: 10_000 }).toBe(1);
  const endedAt = systemClock.now();
  cli.kill(signal);
  await expect.poll(running, { interval: 10 }).toBe(0);
  await mesh().quiet();
  expect(systemClock.now() - endedAt).toBeLessThan(2000); // it would have run for 4 s
  await ended;
});

function startCli(args: readonly string[]): ChildProcess {
  const main = path.join(packageRoot, 'dist/services/cli/main.js');
  return spawn(process.execPath, [main, ...args], { stdio: 'ignore', env: { ...process.env, DMESH_ROUTER: mesh().local.address } });
}
