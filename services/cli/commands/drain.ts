/** dmesh drain and dmesh resume: take a node out of work and back in. */
import { connectMesh, type MeshClient } from '#client';
import { Arguments, MESH_OPTIONS, meshUsage } from '../arguments.js';
import { type Command, type Context, ExitCode } from '../command.js';

const usageOf = (name: string, what: string) => `dmesh ${name} NODE [options]

  ${what}

${meshUsage({ indent: 2, at: 17 })}
`;

export const drain: Command = {
  name: 'drain',
  summary: 'let a node finish what runs and take no more',
  usage: usageOf('drain', 'NODE takes no more work; what runs is finished. It stays in the mesh until it is stopped.'),
  run: (args, context) => tellNode(args, context, { done: 'drains', tell: (mesh, nodeId) => mesh.drain(nodeId) }),
};

export const resume: Command = {
  name: 'resume',
  summary: 'let a drained node work again',
  usage: usageOf('resume', 'NODE takes work again.'),
  run: (args, context) => tellNode(args, context, { done: 'works again', tell: (mesh, nodeId) => mesh.resume(nodeId) }),
};

async function tellNode(
  args: readonly string[],
  { env, terminal }: Context,
  verb: { done: string; tell: (mesh: MeshClient, nodeId: string) => Promise<void> },
): Promise<ExitCode> {
  const read = new Arguments(args, { ...MESH_OPTIONS });
  const [nodeId = ''] = read.expectPositionals(['the name of a NODE']);
  const at = read.mesh(env);
  read.check();
  const mesh = connectMesh(at);
  try {
    await verb.tell(mesh, nodeId);
    terminal.out(`${nodeId} ${verb.done}\n`);
    return ExitCode.OK;
  } finally {
    mesh.close();
  }
}
