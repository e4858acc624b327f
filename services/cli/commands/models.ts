/** dmesh models: what can be asked for, with defaults and limits. */
import { connectMesh, type Model } from '#client';
import { generation } from '#contracts';
import { Arguments, MESH_OPTIONS } from '../arguments.js';
import { type Command, type Context, DEFAULT_ROUTER, ExitCode } from '../command.js';
import { table } from '../table.js';

const usage = `dmesh models [options]

  --json         every field, as JSON
  --router ADDR  host:port; default $DMESH_ROUTER, else ${DEFAULT_ROUTER}
  --token TOKEN  who asks, where the mesh wants to know; better in $DMESH_TOKEN
`;

export const models: Command = { name: 'models', summary: 'list what the mesh can draw with', usage, run };

async function run(args: readonly string[], { env, terminal, signal }: Context): Promise<ExitCode> {
  const read = new Arguments(args, { json: { type: 'boolean' }, ...MESH_OPTIONS });
  read.expectPositionals([]);
  const at = read.mesh(env);
  read.check();
  const mesh = connectMesh(at);
  try {
    const listed = await mesh.listModels({ signal });
    if (read.flag('json')) terminal.out(`${JSON.stringify(listed.map((model) => generation.Model.toJSON(model)))}\n`);
    else if (listed.length === 0) terminal.out('No node serves a model right now; "dmesh nodes" shows how they feel.\n');
    else terminal.out(describe(listed));
    return ExitCode.OK;
  } finally {
    mesh.close();
  }
}

function describe(listed: readonly Model[]): string {
  const head = ['MODEL', 'REVISION', 'SIZE', 'FROM', 'TO', 'STEPS', 'LANGUAGES', 'LORAS', 'NODES', 'LEADS TO'];
  const rows = listed.map(({ name, revision, defaults, limits, languages, loras, nodes, leadsTo }) => [
    name,
    revision.slice(0, 12),
    defaults ? `${defaults.width}×${defaults.height}` : '',
    limits ? `${limits.minWidth}×${limits.minHeight}` : '',
    limits ? `${limits.maxWidth}×${limits.maxHeight} by ${limits.sizeMultiple}` : '',
    defaults && limits ? `${defaults.steps} (${limits.minSteps}–${limits.maxSteps})` : '',
    languages.join(' '),
    loras.map((lora) => lora.name).join(' ') || '-',
    String(nodes),
    leadsTo.join(' ') || '-',
  ]);
  return table(head, rows);
}
