/** dmesh nodes: who is in the mesh and how it feels, once or as it changes. */
import { connectMesh, type MeshSnapshot, type NodeInfo } from '#client';
import { admin } from '#contracts';
import { printable } from '#core';
import { Arguments, MESH_OPTIONS, meshUsage } from '../arguments.js';
import { type Command, type Context, ExitCode } from '../command.js';
import { breakerOf, modelsOf, stateOf } from '../node-words.js';
import { table } from '../table.js';
import { CLEAR_SCREEN, type Paint } from '../terminal.js';

const usage = `dmesh nodes [options]

  -w, --watch        again whenever something changes, until Ctrl-C
      --json         every field, as JSON; with --watch one object a line
${meshUsage({ indent: 6, at: 21 })}
`;

export const nodes: Command = { name: 'nodes', summary: 'list the nodes of the mesh', usage, run };

async function run(args: readonly string[], context: Context): Promise<ExitCode> {
  const { env, terminal, signal } = context;
  const read = new Arguments(args, {
    json: { type: 'boolean' },
    watch: { type: 'boolean', short: 'w' },
    ...MESH_OPTIONS,
  });
  read.expectPositionals([]);
  const at = read.mesh(env);
  read.check();
  const mesh = connectMesh(at);
  try {
    if (read.flag('watch')) {
      try {
        for await (const snapshot of mesh.watchMesh({ signal })) showSnapshot(snapshot, read.flag('json'), context);
      } catch (error) {
        if (!signal.aborted) throw error; // Ctrl-C is how a watch ends
      }
      return ExitCode.OK;
    }
    const listed = await mesh.listNodes({ signal });
    if (read.flag('json')) terminal.out(`${JSON.stringify(listed.map((node) => admin.NodeInfo.toJSON(node)))}\n`);
    else terminal.out(describeNodes(listed, terminal.paint));
    return ExitCode.OK;
  } finally {
    mesh.close();
  }
}

function showSnapshot(snapshot: MeshSnapshot, json: boolean, { terminal }: Context): void {
  if (json) {
    terminal.out(`${JSON.stringify(admin.MeshSnapshot.toJSON(snapshot))}\n`);
    return;
  }
  const frozen = snapshot.membershipFrozen ? terminal.paint('yellow', '  NATS is silent: the router keeps what it knew') : '';
  const counts = `${snapshot.queuedCount} queued, ${snapshot.runningCount} running${frozen}\n`;
  terminal.out(`${terminal.interactive ? CLEAR_SCREEN : ''}${counts}${describeNodes(snapshot.nodes, terminal.paint)}`);
}

function describeNodes(listed: readonly NodeInfo[], paint: Paint): string {
  if (listed.length === 0) return 'The router knows no node.\n';
  const head = [
    'NODE',
    'STATE',
    'BREAKER',
    'ENGINE',
    'SLOTS',
    'RUNNING',
    'DONE',
    'FAILED',
    'RESTARTS',
    'PACE',
    'MODELS',
    'GPU',
    'ADDRESS',
    'ZONE',
  ];
  const rows = [...listed]
    .sort((a, b) => a.nodeId.localeCompare(b.nodeId, 'en', { numeric: true }))
    .map((node) => [
      printable(node.nodeId),
      stateOf(node, paint),
      breakerOf(node, paint),
      printable(`${node.engine || '?'} ${node.engineState}`),
      `${node.busyCount}/${node.slotCount}`,
      node.runningRequestId === '' ? '-' : `${node.runningStep}/${node.runningTotal}`,
      String(node.completedCount),
      String(node.failedCount),
      String(node.engineRestartCount),
      node.costRatio > 0 ? `×${node.costRatio.toFixed(2)}` : '-',
      printable(modelsOf(node)),
      printable(node.gpu?.name ?? 'CPU'),
      printable(node.address),
      printable(node.zone || '-'),
    ]);
  return table(head, rows);
}
