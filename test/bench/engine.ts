/**
 * How fast and how large is the embedded engine? One engine process, one thread: how long until it
 * can draw, what a picture of 128×128 in 8 steps takes as its caller sees it, how much memory it
 * holds after that. On a busy machine the least of many runs tells the most.
 * Targets: ready in 1.5 s, a picture in 100 ms, 300 MB.
 */
import { performance } from 'node:perf_hooks';
import { engine } from '#contracts';
import { latentShape } from '#model-package';
import { torchNoise } from '#noise';
import { startEngine } from '../support/engine-process.js';
import { modelDir } from '../support/model-folder.js';
import { finish, printTable, quantile, rounded } from './support/report.js';

const START_COUNT = 3;
const PICTURE_COUNT = 60;
const SIDE_PX = 128;
const STEPS = 8;
const MAIN = new URL('../../services/engine-onnx/main.js', import.meta.url).pathname;

async function startReady() {
  const startedAt = performance.now();
  const running = await startEngine({ command: [process.execPath, MAIN], env: { DMESH_ENGINE_THREADS: '1' } });
  const { model } = await running.load(modelDir);
  return { running, model: model?.name ?? '', readyMs: performance.now() - startedAt };
}

const readyMs: number[] = [];
for (let i = 1; i < START_COUNT; i++) {
  const { running, readyMs: ms } = await startReady();
  readyMs.push(ms);
  await running.close();
}
const { running, model, readyMs: lastReadyMs } = await startReady();
readyMs.push(lastReadyMs);

const pictureMs: number[] = [];
const stages: engine.EngineDone[] = [];
for (let i = 0; i < PICTURE_COUNT; i++) {
  const seed = BigInt(i);
  const latents = Buffer.from(torchNoise(seed, latentShape(SIDE_PX, SIDE_PX).elementCount).buffer);
  const request = engine.EngineGenerateRequest.fromPartial({
    requestId: `bench-${i}`,
    model,
    prompt: 'a big red circle on a blue background',
    width: SIDE_PX,
    height: SIDE_PX,
    steps: STEPS,
    items: [{ seed, latents }],
  });
  const startedAt = performance.now();
  for await (const { event } of running.generate(request)) if (event?.$case === 'done') stages.push(event.value);
  pictureMs.push(performance.now() - startedAt);
}
const residentMB = Number((await running.status()).memoryUsedBytes) / 1e6;
await running.close();

const least = (values: readonly number[]) => rounded(Math.min(...values));
const median = (values: readonly number[]) => rounded(quantile(values, 0.5));
const stage = (pick: (done: engine.EngineDone) => number) => stages.map(pick);
const rows: readonly (readonly [string, readonly number[], string])[] = [
  ['ready after start, ms', readyMs, '1500'],
  ['picture, ms', pictureMs, '100'],
  ['  caption, ms', stage((done) => done.encodeMs), ''],
  ['  denoising, ms', stage((done) => done.denoiseMs), ''],
  ['  decoding, ms', stage((done) => done.decodeMs), ''],
];
printTable(
  `engine-onnx, ${SIDE_PX}×${SIDE_PX}, ${STEPS} steps, one thread`,
  ['figure', 'least', 'median', 'target'],
  [
    ...rows.map(([name, values, target]) => [name, String(least(values)), String(median(values)), target]),
    ['resident memory, MB', String(rounded(residentMB)), '', '300'],
  ],
);
finish({
  readyMs: { least: least(readyMs), median: median(readyMs) },
  pictureMs: { least: least(pictureMs), median: median(pictureMs) },
  residentMB: rounded(residentMB),
});
