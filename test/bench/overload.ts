/**
 * What becomes of the mesh when three times as much is asked as it can draw, for two minutes? Capacity is
 * measured first, the queue always full; then Poisson arrivals at three times that, of all classes and sizes,
 * from callers who do not come back (the client library would: what it repeats takes as long as it was told to
 * wait). Wanted: it draws as much as before, refuses the rest at once and says why, and needs no more memory
 * in the end than when the queue had filled. What the process occupies says little: V8 lets garbage lie for as
 * long as it may (libs/runtime/large-buffers.ts).
 */
import path from 'node:path';
import { generation } from '#contracts';
import { Reason, StatusError } from '#core';
import { Channel } from '#grpc';
import { LocalMesh } from '#local-mesh';
import { packageRoot, systemClock, systemRandom } from '#runtime';
import { readFigures } from '../support/metrics.js';
import { ASKABLE, askInside } from './support/ask-inside.js';
import { finish, printTable, quantile, rounded } from './support/report.js';

const NODE_COUNT = 8;
const STEP_MS = 50;
const OVERLOAD = 3;
const CAPACITY_MS = 15_000;
const OVERLOAD_MS = 120_000;
const MEMORY_INTERVAL_MS = 5000;
const CALLER_PATIENCE_MS = 60_000;
const { HIGH, NORMAL, LOW } = generation.Priority;
const CLASSES = [HIGH, NORMAL, NORMAL, LOW] as const;
const STEPS = [2, 2, 2, 8] as const;

const engine = `node ${path.join(packageRoot, 'dist/test/engines/scriptable/main.js')}`;
const node = { SCRIPT_STEP: `${STEP_MS}ms`, DMESH_NODE_MODEL_DIR: path.join(packageRoot, 'no-such-model') };
const mesh = await LocalMesh.start({ nodes: NODE_COUNT, engine, env: { node, router: ASKABLE } });
const [router] = mesh.routers;
const channel = new Channel(mesh.address, { clock: systemClock });
try {
  if (!router) throw new Error('expected a router');
  let asked = 0;
  const drawNext = () => {
    const steps = STEPS[asked % STEPS.length] ?? 2;
    const priority = CLASSES[Math.floor(asked++ / STEPS.length) % CLASSES.length] ?? NORMAL;
    const request = generation.GenerateRequest.fromPartial({ prompt: 'x', width: 64, height: 64, steps, priority });
    const deadlineAt = systemClock.now() + CALLER_PATIENCE_MS;
    return channel.unary(generation.ImageGenerationServiceService.generate, request, { deadlineAt });
  };

  /** Pictures drawn each second with the queue always full. */
  const capacity = async (): Promise<number> => {
    let counting = false;
    let drawn = 0;
    let over = false;
    const callers = Array.from({ length: 4 * NODE_COUNT }, async () => {
      while (!over) {
        await drawNext();
        if (counting) drawn++;
      }
    });
    await systemClock.sleep(3000);
    counting = true;
    await systemClock.sleep(CAPACITY_MS);
    over = true;
    const perSec = (1000 * drawn) / CAPACITY_MS;
    await Promise.all(callers);
    return perSec;
  };

  const capacityPerSec = await capacity();
  const occupiedMiB: number[] = [];
  const noteMemory = async () => {
    occupiedMiB.push((await readFigures(router.http)).sum('process_resident_memory_bytes') / 2 ** 20);
  };
  const neededMiB = async () => (await askInside(router)).livingBytes / 2 ** 20;
  const refusals: Record<string, number> = {};
  const refusedInMs: number[] = [];
  const untyped: string[] = [];
  const answers: Promise<void>[] = [];
  let drawn = 0;
  const startedAt = performance.now();
  const isCounted = () => performance.now() - startedAt < OVERLOAD_MS;
  const ask = async () => {
    const askedAt = performance.now();
    try {
      await drawNext();
      if (isCounted()) drawn++;
    } catch (thrown) {
      const { reason } = StatusError.from(thrown);
      // Everything else is what our own side makes of an error without a word of the router.
      if (reason !== Reason.QUEUE_FULL && reason !== Reason.DEADLINE_UNREACHABLE && reason !== Reason.QUEUE_TIMEOUT) {
        untyped.push(String(thrown));
        return;
      }
      refusals[reason] = (refusals[reason] ?? 0) + 1;
      refusedInMs.push(performance.now() - askedAt);
    }
  };
  let memoryDueMs = 0;
  let filledMiB: Promise<number> | undefined;
  for (let atMs = 0; atMs < OVERLOAD_MS; atMs += (-Math.log(1 - systemRandom()) * 1000) / (OVERLOAD * capacityPerSec)) {
    const waitMs = startedAt + atMs - performance.now();
    if (waitMs > 0) await systemClock.sleep(waitMs);
    answers.push(ask());
    if (atMs >= OVERLOAD_MS / 3) filledMiB ??= neededMiB(); // by then the queue is full
    if (atMs < memoryDueMs) continue;
    memoryDueMs += MEMORY_INTERVAL_MS;
    await noteMemory();
  }
  const lateMiB = await neededMiB();
  await Promise.all(answers);

  const figures = {
    capacityPerSec: rounded(capacityPerSec),
    goodputRatio: rounded((1000 * drawn) / OVERLOAD_MS / capacityPerSec),
    asked: answers.length,
    drawn,
    refusals,
    refusedP50Ms: rounded(quantile(refusedInMs, 0.5)),
    refusedP95Ms: rounded(quantile(refusedInMs, 0.95)),
    refusedMaxMs: rounded(quantile(refusedInMs, 1)),
    untyped: untyped.length,
    memoryFilledMiB: rounded((await filledMiB) ?? Number.NaN),
    memoryLateMiB: rounded(lateMiB),
    occupiedMaxMiB: rounded(Math.max(...occupiedMiB)),
  };
  printTable(
    `${OVERLOAD} × what ${NODE_COUNT} nodes can draw, for ${OVERLOAD_MS / 1000} s`,
    ['figure', 'value', 'target'],
    [
      ['capacity, pictures per second', figures.capacityPerSec, ''],
      ['drawn under overload, of capacity', figures.goodputRatio, '>= 0.95'],
      ['asked for', String(figures.asked), ''],
      ...Object.entries(refusals).map(([reason, count]) => [`refused: ${reason}`, String(count), '']),
      ['refused without a reason', String(figures.untyped), '0'],
      ['a refusal takes, median ms', figures.refusedP50Ms, '<= 50'],
      ['a refusal takes, p95 ms', figures.refusedP95Ms, ''],
      ['a refusal takes, most ms (pushed out)', figures.refusedMaxMs, ''],
      ['memory in use after a third of the time, MiB', figures.memoryFilledMiB, ''],
      ['memory in use at the end, MiB', figures.memoryLateMiB, '<= 1.1 × that'],
      ['memory the router occupied at most, MiB', figures.occupiedMaxMiB, ''],
    ],
  );
  if (untyped[0]) console.log(`  first without a reason: ${untyped[0]}`);
  finish(figures);
} finally {
  channel.close();
  await mesh.stop();
}
