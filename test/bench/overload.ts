/**
 * What becomes of the mesh when three times as much is asked as it can draw, for two minutes? Capacity is
 * measured first, the queue always full; then Poisson arrivals at three times that, of all classes and sizes,
 * from callers who do not come back. Wanted: it draws as much as before, refuses the rest at once and says
 * why, and its memory stays where it was.
 */
import path from 'node:path';
import { connectMesh, MeshError, type PictureRequest } from '#client';
import { LocalMesh } from '#local-mesh';
import { packageRoot, systemClock, systemRandom } from '#runtime';
import { readFigures } from '../support/metrics.js';
import { finish, printTable, quantile, rounded } from './support/report.js';

const NODE_COUNT = 8;
const STEP_MS = 50;
const OVERLOAD = 3;
const CAPACITY_MS = 15_000;
const OVERLOAD_MS = 120_000;
const MEMORY_INTERVAL_MS = 5000;
const CLASSES = ['high', 'normal', 'normal', 'low'] as const;
const STEPS = [2, 2, 2, 8] as const;

const engine = `node ${path.join(packageRoot, 'dist/test/engines/scriptable/main.js')}`;
const node = { SCRIPT_STEP: `${STEP_MS}ms`, DMESH_NODE_MODEL_DIR: path.join(packageRoot, 'no-such-model') };
const mesh = await LocalMesh.start({ nodes: NODE_COUNT, engine, env: { node } });
const client = connectMesh({ address: mesh.address });
try {
  let asked = 0;
  const next = (): PictureRequest => ({
    prompt: 'x',
    width: 64,
    height: 64,
    steps: STEPS[asked % STEPS.length] ?? 2,
    priority: CLASSES[Math.floor(asked++ / STEPS.length) % CLASSES.length] ?? 'normal',
  });

  /** Pictures drawn each second with the queue always full. */
  const capacity = async (): Promise<number> => {
    let counting = false;
    let drawn = 0;
    let over = false;
    const callers = Array.from({ length: 4 * NODE_COUNT }, async () => {
      while (!over) {
        await client.generate(next());
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
  const residentMiB = async () => (await readFigures(mesh.routers[0]?.http ?? '')).sum('process_resident_memory_bytes') / 2 ** 20;
  const memoryMiB: number[] = [];
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
      await client.generate(next());
      if (isCounted()) drawn++;
    } catch (thrown) {
      if (thrown instanceof MeshError && thrown.reason) {
        refusals[thrown.reason] = (refusals[thrown.reason] ?? 0) + 1;
        refusedInMs.push(performance.now() - askedAt);
      } else untyped.push(String(thrown));
    }
  };
  let memoryDueMs = 0;
  for (let atMs = 0; atMs < OVERLOAD_MS; atMs += (-Math.log(1 - systemRandom()) * 1000) / (OVERLOAD * capacityPerSec)) {
    const waitMs = startedAt + atMs - performance.now();
    if (waitMs > 0) await systemClock.sleep(waitMs);
    answers.push(ask());
    if (atMs < memoryDueMs) continue;
    memoryDueMs += MEMORY_INTERVAL_MS;
    answers.push(residentMiB().then((each) => void memoryMiB.push(each)));
  }
  await Promise.all(answers);

  const third = Math.ceil(memoryMiB.length / 3);
  const figures = {
    capacityPerSec: rounded(capacityPerSec),
    goodputRatio: rounded((1000 * drawn) / OVERLOAD_MS / capacityPerSec),
    asked: answers.length - memoryMiB.length,
    drawn,
    refusals,
    refusedP50Ms: rounded(quantile(refusedInMs, 0.5)),
    refusedP95Ms: rounded(quantile(refusedInMs, 0.95)),
    untyped: untyped.length,
    // The first third fills the queue and lets the heap find its size.
    memoryMiddleMiB: rounded(Math.max(...memoryMiB.slice(third, -third))),
    memoryLateMiB: rounded(Math.max(...memoryMiB.slice(-third))),
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
      ['a refusal takes, median ms', figures.refusedP50Ms, ''],
      ['a refusal takes, p95 ms (pushed out)', figures.refusedP95Ms, ''],
      ['memory of the router, second third, MiB', figures.memoryMiddleMiB, ''],
      ['memory of the router, last third, MiB', figures.memoryLateMiB, '<= 1.1 × the second'],
    ],
  );
  if (untyped[0]) console.log(`  first without a reason: ${untyped[0]}`);
  finish(figures);
} finally {
  client.close();
  await mesh.stop();
}
