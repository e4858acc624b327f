/** dmesh routes: which public model names lead where, shown and changed for the whole mesh. */
import { connectMesh, type MeshClient, type Route, StatusError } from '#client';
import { Arguments, MESH_OPTIONS, meshUsage, UsageError } from '../arguments.js';
import { type Command, type Context, ExitCode } from '../command.js';
import { readRouteArguments } from '../route-arguments.js';
import { table } from '../table.js';

const usage = `dmesh routes get [--json]
dmesh routes set NAME=TARGET[,TARGET...]... [options]

  get                  the routes in force
  set NAME=TARGET,...  where NAME leads from now on; other routes stay as they are
                       TARGET is MODEL[@REVISION][:WEIGHT]; without a revision any, without a weight 1
  set NAME=            takes the route away

      --force          also with targets that no node serves yet
      --json           every field, as JSON
${meshUsage({ indent: 6, at: 23 })}

  For example: dmesh routes set z-image=z-image-tiny@3:90,z-image-tiny@4:10
`;

export const routes: Command = { name: 'routes', summary: 'show or change where model names lead', usage, run };

async function run(args: readonly string[], { env, signal, terminal }: Context): Promise<ExitCode> {
  const read = new Arguments(args, { force: { type: 'boolean' }, json: { type: 'boolean' }, ...MESH_OPTIONS });
  const [action = '', ...rest] = read.positionals;
  if (action !== 'get' && action !== 'set') {
    const gone = rest.length === 1 ? rest[0] : 'NAME';
    throw new UsageError(
      [`expected get or set, got ${action === '' ? 'nothing' : JSON.stringify(action)}`],
      `"dmesh routes set NAME=MODEL" sets a route, "dmesh routes set ${gone}=" takes it away; dmesh routes --help shows the rest`,
    );
  }
  if (action === 'get') read.expectPositionals(['get']);
  const changes = action === 'set' ? readRouteArguments(rest, (fault) => read.fault(fault)) : new Map<string, Route>();
  const at = read.mesh(env);
  read.check();
  const mesh = connectMesh(at);
  try {
    if (action === 'set') await change(mesh, changes, { force: read.flag('force'), signal });
    const { routes: now, revision } = await mesh.getRoutes({ signal });
    if (read.flag('json')) terminal.out(`${JSON.stringify({ revision: Number(revision), routes: now })}\n`);
    else terminal.out(describe(now));
    return ExitCode.OK;
  } finally {
    mesh.close();
  }
}

/** Reads, changes and writes back; what somebody else changes in between is refused, not lost. */
async function change(
  mesh: MeshClient,
  changes: ReadonlyMap<string, Route>,
  options: { force: boolean; signal: AbortSignal },
): Promise<void> {
  const { routes: before, revision } = await mesh.getRoutes({ signal: options.signal });
  const after = new Map(before.map((route) => [route.name, route]));
  const faults: string[] = [];
  for (const [name, route] of changes) {
    if (route.targets.length > 0) after.set(name, route);
    else if (!after.delete(name)) faults.push(`expected a route to take away, there is none called ${JSON.stringify(name)}`);
  }
  if (faults.length > 0) throw new UsageError(faults, 'dmesh routes get shows those there are');
  const wanted = [...after.values()].sort((a, b) => a.name.localeCompare(b.name));
  try {
    await mesh.setRoutes(wanted, { expectedRevision: revision, force: options.force, signal: options.signal });
  } catch (error) {
    throw error instanceof StatusError ? inOurWords(error, wanted) : error;
  }
}

/** The mesh counts routes and targets; a person knows them by name. */
function inOurWords(error: StatusError, wanted: readonly Route[]): StatusError {
  const { violations = [] } = error.details;
  if (violations.length === 0) return error;
  const inNames = violations.map(({ field, description }) => {
    const [, route = '', target] = /^routes\[(\d+)\](?:\.targets\[(\d+)\])?/.exec(field) ?? [];
    const { name = field, targets = [] } = wanted[Number(route)] ?? {};
    const at = target === undefined ? undefined : targets[Number(target)];
    if (!at) return `${name}: ${description}`;
    const typed = `${at.model}${at.revision ? `@${at.revision}` : ''}`;
    // Names may hold colons, so only now is it likely that this one was meant to stand before a weight.
    const [, tail] = /:([^:]*)$/.exec(typed) ?? [];
    const weight = tail === undefined ? '' : `expected a weight (a whole number) behind the last colon, got ${JSON.stringify(tail)}; or `;
    return `${name} → ${typed}: ${weight}${description}`;
  });
  const { code, reason, message } = error;
  return new StatusError({ code, reason, message, violations: inNames.map((description) => ({ field: '', description })), cause: error });
}

function describe(routes: readonly Route[]): string {
  if (routes.length === 0) return 'There are no routes: callers ask for models by their own names.\n';
  const rows = routes.flatMap(({ name, targets }) => {
    const sum = targets.reduce((all, { weight }) => all + weight, 0);
    return targets.map(({ model, revision, weight }, i) => [
      i === 0 ? name : '',
      `${Number(((100 * weight) / Math.max(1, sum)).toFixed(2))} %`,
      model,
      revision || 'any',
    ]);
  });
  return table(['ROUTE', 'SHARE', 'MODEL', 'REVISION'], rows);
}
