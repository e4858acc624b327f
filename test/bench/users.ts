/**
 * What do 200 users at once see of three nodes? Every user asks again and again for small pictures of
 * the embedded model, half of them watching progress. Nobody may see an error, and equal requests
 * must give equal bytes, whoever drew them.
 */
import { createHash } from 'node:crypto';
import { connectMesh, type MeshClient, MeshError } from '#client';
import { LocalMesh } from '#local-mesh';
import { finish, printTable, quantile, rounded } from './support/report.js';

const NODE_COUNT = 3;
const USER_COUNT = 200;
const PICTURES_PER_USER = 3;
const PICTURE = { width: 64, height: 64, steps: 4, format: 'png' } as const;
/** Requests repeat after so many. */
const DIFFERENT_COUNT = 40;

const latenciesMs: number[] = [];
const errors = new Map<string, number>();
const byNode = new Map<string, number>();
const digests = new Map<number, Set<string>>();

const mesh = await LocalMesh.start({ nodes: NODE_COUNT });
let tookMs = Number.NaN;
try {
  const startedAt = performance.now();
  await Promise.all(Array.from({ length: USER_COUNT }, (_, index) => user(index)));
  tookMs = performance.now() - startedAt;
} finally {
  await mesh.stop();
}

const errorCount = total(errors);
const unequalCount = [...digests.values()].filter((different) => different.size > 1).length;
const picturesPerSec = (1000 * latenciesMs.length) / tookMs;
const quantiles = { p50Ms: quantile(latenciesMs, 0.5), p90Ms: quantile(latenciesMs, 0.9), p99Ms: quantile(latenciesMs, 0.99) };
printTable(
  `${USER_COUNT} users, ${NODE_COUNT} nodes, ${PICTURE.width}×${PICTURE.height} pictures of ${PICTURE.steps} steps`,
  ['pictures', 'errors', 'unequal', 'pictures/s', 'p50 ms', 'p90 ms', 'p99 ms', 'max ms'],
  [
    [
      String(latenciesMs.length),
      String(errorCount),
      String(unequalCount),
      picturesPerSec,
      ...Object.values(quantiles).map(Math.round).map(String),
      String(Math.round(Math.max(...latenciesMs))),
    ],
  ],
);
for (const [reason, count] of errors) console.log(`  ${count} × ${reason}`);
console.log(`  drawn by ${[...byNode].map(([nodeId, count]) => `${nodeId}: ${count}`).join(', ')}; target: 0 errors, 0 unequal`);
finish({
  users: USER_COUNT,
  nodes: NODE_COUNT,
  pictures: latenciesMs.length,
  errors: errorCount,
  unequal: unequalCount,
  picturesPerSec: rounded(picturesPerSec),
  ...Object.fromEntries(Object.entries(quantiles).map(([name, ms]) => [name, rounded(ms)])),
});
if (errorCount > 0 || unequalCount > 0) process.exitCode = 1;

/** One connection each, as 200 services would have. */
async function user(index: number): Promise<void> {
  const client = connectMesh({ address: mesh.address });
  for (let i = 0; i < PICTURES_PER_USER; i++) await ask(client, (index * PICTURES_PER_USER + i) % DIFFERENT_COUNT, index % 2 === 0);
  client.close();
}

async function ask(client: MeshClient, which: number, watches: boolean): Promise<void> {
  const sentAt = performance.now();
  try {
    const request = { ...PICTURE, prompt: `a red circle, picture ${which}`, seed: which };
    const { images, nodeId } = await client.generate(request, { timeoutMs: 300_000, ...(watches ? { onProgress: () => {} } : {}) });
    latenciesMs.push(performance.now() - sentAt);
    count(byNode, nodeId);
    const digest = createHash('sha256')
      .update(images[0]?.data ?? '')
      .digest('hex');
    digests.set(which, (digests.get(which) ?? new Set()).add(digest));
  } catch (error) {
    count(errors, error instanceof MeshError ? `${error.reason}: ${error.message}` : String(error));
  }
}

function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

function total(counts: ReadonlyMap<string, number>): number {
  return [...counts.values()].reduce((sum, value) => sum + value, 0);
}
