/** dmesh token: who may use the mesh. Works on the file; routers follow it by themselves. */
import { DEFAULT_LIMITS, hashSecret, makeToken, type Token } from '#access';
import { Arguments, UsageError } from '../arguments.js';
import { type Command, type Context, ExitCode } from '../command.js';
import { table } from '../table.js';
import { changeTokens, readTokens } from '../token-store.js';

const usage = `dmesh token add --file F --tenant NAME [options]
dmesh token list --file F [--json]
dmesh token revoke ID --file F

  add prints the token; it is kept nowhere else. Routers (DMESH_ROUTER_TOKEN_FILE) follow the file.

      --file F            the token file; add makes it, readable by its owner alone
      --tenant NAME       who pays: all its tokens share one account; limits given here hold for all
      --max-priority P    the most urgent class it may ask for: high, normal or low; default normal
      --rate N            requests a second; default ${DEFAULT_LIMITS.ratePerSec}, or what the tenant has
      --burst N           requests at once; default ${DEFAULT_LIMITS.burst}, or what the tenant has
      --gpu-seconds N     GPU-seconds a minute; default no limit, or what the tenant has
      --model NAME        may ask for this model alone; repeatable; default all
      --admin             may list, drain and resume nodes, and set routes
      --acts-for-all      may ask in the name of any tenant, who then pays: for the jobs service
      --json              list: one object a token, without hashes
`;

export const token: Command = { name: 'token', summary: 'say who may use the mesh: add, list, revoke', usage, run };

const OPTIONS = {
  file: { type: 'string' },
  tenant: { type: 'string' },
  'max-priority': { type: 'string' },
  rate: { type: 'string' },
  burst: { type: 'string' },
  'gpu-seconds': { type: 'string' },
  model: { type: 'string', multiple: true },
  admin: { type: 'boolean' },
  'acts-for-all': { type: 'boolean' },
  json: { type: 'boolean' },
} as const;

async function run(args: readonly string[], context: Context): Promise<ExitCode> {
  const read = new Arguments(args, OPTIONS);
  const verb = read.positionals[0];
  const file = read.text('file') ?? '';
  if (file === '') read.fault('--file: expected the token file, got nothing');
  switch (verb) {
    case 'add':
      return add(read, file, context);
    case 'list':
      return list(read, file, context);
    case 'revoke':
      return revoke(read, file, context);
    default:
      read.fault(`expected add, list or revoke, got ${verb === undefined ? 'nothing' : JSON.stringify(verb)}`);
      read.check();
      return ExitCode.USAGE;
  }
}

async function add(read: Arguments, file: string, { terminal }: Context): Promise<ExitCode> {
  read.expectPositionals(['add']);
  const tenant = read.text('tenant') ?? '';
  if (tenant === '') read.fault('--tenant: expected a name, got nothing');
  const maxPriority = read.choice('max-priority', ['high', 'normal', 'low']) ?? 'normal';
  const [ratePerSec, burst, gpuSecondsPerMinute] = (['rate', 'burst', 'gpu-seconds'] as const).map((name) =>
    read.parsed(name, 'a number above 0 such as 5 or 0.5', (text) =>
      /^\d+(\.\d+)?$/.test(text) && Number(text) > 0 ? Number(text) : undefined,
    ),
  );
  read.check();
  const made = makeToken();
  const hash = await hashSecret(made.secret); // takes a while: before the file is locked
  const models = read.list('model');
  const withToken = (tokens: readonly Token[]): readonly Token[] => {
    const account = tokens.find((other) => other.tenant === tenant) ?? DEFAULT_LIMITS;
    const limits = {
      ratePerSec: ratePerSec ?? account.ratePerSec,
      burst: burst ?? account.burst,
      gpuSecondsPerMinute: gpuSecondsPerMinute ?? account.gpuSecondsPerMinute,
    };
    const entry: Token = {
      id: made.id,
      tenant,
      hash,
      maxPriority,
      ...limits,
      models: models.length > 0 ? models : undefined,
      admin: read.flag('admin'),
      actsFor: read.flag('acts-for-all'),
    };
    return [...tokens.map((other) => (other.tenant === tenant ? { ...other, ...limits } : other)), entry];
  };
  await changeTokens(file, withToken, { orNone: true });
  const use = read.flag('acts-for-all') ? 'the jobs service is given it as DMESH_JOBS_ROUTER_TOKEN' : 'its owner sets DMESH_TOKEN to it';
  terminal.err(terminal.paint('dim', `this is shown once; ${use}:\n`));
  terminal.out(`${made.text}\n`);
  return ExitCode.OK;
}

async function list(read: Arguments, file: string, { terminal }: Context): Promise<ExitCode> {
  read.expectPositionals(['list']);
  read.check();
  const tokens = await readTokens(file);
  if (read.flag('json')) terminal.out(`${JSON.stringify(tokens.map(({ hash: _hash, ...rest }) => rest))}\n`);
  else if (tokens.length === 0) terminal.out('No token: nobody may use the mesh.\n');
  else terminal.out(describe(tokens));
  return ExitCode.OK;
}

async function revoke(read: Arguments, file: string, { terminal }: Context): Promise<ExitCode> {
  const [, id = ''] = read.expectPositionals(['revoke', 'the ID of a token']);
  read.check();
  let known: readonly string[] = [];
  await changeTokens(file, (tokens) => {
    known = tokens.map((other) => other.id);
    return known.includes(id) ? tokens.filter((other) => other.id !== id) : undefined;
  });
  if (!known.includes(id)) {
    throw new UsageError(
      [`expected one of the tokens ${known.join(', ') || '(none)'}, got ${JSON.stringify(id)}`],
      '"dmesh token list" tells whose they are',
    );
  }
  terminal.out(`${id} is revoked\n`);
  return ExitCode.OK;
}

function describe(tokens: readonly Token[]): string {
  const head = ['ID', 'TENANT', 'PRIORITY', 'REQUESTS/S', 'BURST', 'GPU-S/MIN', 'MODELS', 'ADMIN', 'ACTS FOR ALL'];
  const rows = tokens.map((one) => [
    one.id,
    one.tenant,
    one.maxPriority,
    String(one.ratePerSec),
    String(one.burst),
    one.gpuSecondsPerMinute === undefined ? '-' : String(one.gpuSecondsPerMinute),
    one.models?.join(' ') ?? 'all',
    one.admin ? 'yes' : '-',
    one.actsFor ? 'yes' : '-',
  ]);
  return table(head, rows);
}
