/**
 * Do eight nodes draw eight times as much as one? Throughput through one router with 1, 2, 4 and 8
 * nodes, the queue always full. The nodes are real; their engines are scripted to take a fixed time,
 * mostly waiting, so that the machine's cores are not the limit and what shows is the mesh: the gap
 * between the end of one picture and the start of the next.
 */
import path from 'node:path';
import { connectMesh, type MeshClient } from '#client';
import { LocalMesh } from '#local-mesh';
import { packageRoot } from '#runtime';
import { finish, printTable, rounded } from './support/report.js';

const NODE_COUNTS = [1, 2, 4, 8] as const;
const STEPS = 8;
const STEP_MS = 50;
const PICTURE_MS = STEPS * STEP_MS;
const SIDE_PX = 64;
/** First pictures of every node teach the router and the node how long a picture takes. */
const WARM_UP_PER_NODE = 4;
const MEASURED_PER_NODE = 24;
/** Callers for each node: one is served, the others wait. */
const CALLERS_PER_NODE = 3;

interface Point {
  readonly nodeCount: number;
  readonly picturesPerSec: number;
  /** Time from the end of a picture to the start of the next on the same node. */
  readonly gapMs: number;
}

const engine = `node ${path.join(packageRoot, 'dist/test/engines/scriptable/main.js')}`;
const env = { SCRIPT_STEP: `${STEP_MS}ms`, DMESH_NODE_MODEL_DIR: path.join(packageRoot, 'no-such-model') };
const mesh = await LocalMesh.start({ nodes: 1, engine, env: { node: env } });
const points: Point[] = [];
try {
  const client = connectMesh({ address: mesh.address });
  for (const nodeCount of NODE_COUNTS) {
    await Promise.all(Array.from({ length: nodeCount - mesh.nodes.length }, () => mesh.addNode()));
    await mesh.waitForNodes(nodeCount);
    points.push(await measure(client, nodeCount));
  }
  client.close();
} finally {
  await mesh.stop();
}

const alone = points[0]?.picturesPerSec ?? Number.NaN;
const linearity = ({ nodeCount, picturesPerSec }: Point) => picturesPerSec / (nodeCount * alone);
printTable(
  `Throughput, ${PICTURE_MS} ms a picture, ${CALLERS_PER_NODE} callers a node`,
  ['nodes', 'pictures/s', '× one node', 'of linear', 'gap ms'],
  points.map((point) => [String(point.nodeCount), point.picturesPerSec, point.picturesPerSec / alone, linearity(point), point.gapMs]),
);
console.log('  target: 0.97 of linear at 8 nodes');
const last = points.at(-1);
finish({
  linearity8: last ? rounded(linearity(last)) : null,
  throughput: Object.fromEntries(points.map((point) => [point.nodeCount, rounded(point.picturesPerSec)])),
  gapMs: Object.fromEntries(points.map((point) => [point.nodeCount, rounded(point.gapMs)])),
  pictureMs: PICTURE_MS,
});

/** Callers ask again as soon as they are served; pictures are counted once every node is warm. */
async function measure(client: MeshClient, nodeCount: number): Promise<Point> {
  const warmUpCount = nodeCount * WARM_UP_PER_NODE;
  const pictureCount = warmUpCount + nodeCount * MEASURED_PER_NODE;
  const doneAt: number[] = [];
  const caller = async () => {
    while (doneAt.length < pictureCount) {
      await client.generate({ prompt: 'scale', width: SIDE_PX, height: SIDE_PX, steps: STEPS, format: 'png' }, { timeoutMs: 120_000 });
      doneAt.push(performance.now());
    }
  };
  await Promise.all(Array.from({ length: nodeCount * CALLERS_PER_NODE }, caller));
  const first = doneAt[warmUpCount - 1] ?? Number.NaN;
  const end = doneAt[pictureCount - 1] ?? Number.NaN;
  const picturesPerSec = (1000 * nodeCount * MEASURED_PER_NODE) / (end - first);
  return { nodeCount, picturesPerSec, gapMs: (1000 * nodeCount) / picturesPerSec - PICTURE_MS };
}
