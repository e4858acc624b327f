/** What was typed, checked: every fault is collected, so that one message tells them all. */
import { type ParseArgsConfig, parseArgs } from 'node:util';
import { type Env, parseDurationMs } from '#runtime';
import { type ClientTlsPaths, clientTlsFromFiles } from '#tls';
import { DEFAULT_ROUTER } from './command.js';

/** host:port, [v6]:port or unix:/path. */
const ADDRESS = /^(?:[^\s:]+|\[[0-9a-fA-F:]+\]):\d{1,5}$|^unix:./;

/** Printable and without spaces: what may stand in a header. The rest is the mesh's to judge. */
const TOKEN = /^[\x21-\x7e]+$/;

type Options = NonNullable<ParseArgsConfig['options']>;

/** Of every command that calls the mesh. */
export const MESH_OPTIONS = {
  router: { type: 'string' },
  token: { type: 'string' },
  ca: { type: 'string' },
  cert: { type: 'string' },
  key: { type: 'string' },
} as const;

/** Of these, the lines of a command's usage: `indent` columns in, what they mean from column `at` on. */
export function meshUsage({ indent, at }: { readonly indent: number; readonly at: number }): string {
  const lines = [
    ['--router ADDR', `host:port; default $DMESH_ROUTER, else ${DEFAULT_ROUTER}`],
    ['--token TOKEN', 'who asks, where the mesh wants to know; better in $DMESH_TOKEN'],
    ['--ca FILE', 'the mesh speaks TLS, and this CA (PEM) vouches for it; or $DMESH_TLS_CA'],
    ['--cert FILE', 'certificate to show, where the mesh asks callers for one; or $DMESH_TLS_CERT'],
    ['--key FILE', 'its key; or $DMESH_TLS_KEY'],
  ];
  return lines.map(([option = '', meaning = '']) => `${' '.repeat(indent)}${option}`.padEnd(at) + meaning).join('\n');
}

/** Where the mesh is, and what to show it; as libs/client takes it. */
export interface MeshAddress {
  readonly address: string;
  readonly token: string | undefined;
  readonly tls: ClientTlsPaths | undefined;
}

export class UsageError extends Error {
  override readonly name = 'UsageError';
  /** `hint`: what to type instead. */
  constructor(
    readonly faults: readonly string[],
    readonly hint?: string,
  ) {
    super(faults.join('\n'));
  }
}

export class Arguments {
  readonly positionals: readonly string[];
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #faults: string[] = [];
  #hint: string | undefined;

  constructor(args: readonly string[], options: Options) {
    try {
      const all: Options = { ...options, help: { type: 'boolean', short: 'h' } };
      const parsed = parseArgs({ args: withNegativeNumbers(args, all), options: all, allowPositionals: true });
      this.#values = parsed.values;
      this.positionals = parsed.positionals;
    } catch (error) {
      // parseArgs adds advice after the first sentence that fits its own syntax, not ours.
      const text = error instanceof Error ? error.message : String(error);
      const [, name, fault] = /^Option '(?:-\w, )?(-\S+?)(?: <value>)?' argument (missing|is ambiguous)/.exec(text) ?? [];
      const valueless = `${name}: expected a value, got ${fault === 'missing' ? 'nothing' : 'another option'}`;
      throw new UsageError([name === undefined ? (text.split(/\. |\n/)[0] ?? text) : valueless]);
    }
  }

  flag(name: string): boolean {
    return this.#values[name] === true;
  }

  text(name: string): string | undefined {
    const value = this.#values[name];
    return typeof value === 'string' ? value : undefined;
  }

  list(name: string): readonly string[] {
    const value = this.#values[name];
    return Array.isArray(value) ? value.map(String) : [];
  }

  /** `parse` answers undefined for what is no such thing; `expects` says what would be. */
  parsed<T>(name: string, expects: string, parse: (text: string) => T | undefined): T | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = parse(text);
    if (value === undefined) this.fault(`--${name}: expected ${expects}, got ${JSON.stringify(text)}`);
    return value;
  }

  integer(name: string, range: { min: number; max: number }): number | undefined {
    return this.parsed(name, `a whole number from ${range.min} to ${range.max}`, (text) => {
      const value = Number(text);
      return /^\d+$/.test(text) && value >= range.min && value <= range.max ? value : undefined;
    });
  }

  durationMs(name: string): number | undefined {
    return this.parsed(name, 'a duration such as 500ms, 60s or 5m', parseDurationMs);
  }

  seed(): bigint | undefined {
    return this.parsed('seed', 'a whole number below 2^64', (text) =>
      /^\d{1,20}$/.test(text) && BigInt(text) < 2n ** 64n ? BigInt(text) : undefined,
    );
  }

  choice<const T extends string>(name: string, choices: readonly T[]): T | undefined {
    return this.parsed(name, `one of ${choices.join(', ')}`, (text) => choices.find((choice) => choice === text));
  }

  /** --router, else DMESH_ROUTER, else the usual port of this machine. */
  router(env: Env): string {
    const given =
      this.text('router') === undefined
        ? { name: 'DMESH_ROUTER', text: env.DMESH_ROUTER }
        : { name: '--router', text: this.text('router') };
    const address = given.text ?? DEFAULT_ROUTER;
    if (!ADDRESS.test(address)) this.fault(`${given.name}: expected host:port, got ${JSON.stringify(address)}`);
    return address;
  }

  /** The router and what to show it: --token, else DMESH_TOKEN, and certificates. A command that calls it takes MESH_OPTIONS. */
  mesh(env: Env): MeshAddress {
    const token = this.text('token') ?? env.DMESH_TOKEN;
    if (token !== undefined && !TOKEN.test(token)) {
      this.fault(`${this.text('token') === undefined ? 'DMESH_TOKEN' : '--token'}: expected a token such as dm_…, got something else`);
    }
    return { address: this.router(env), token, tls: this.tls(env) };
  }

  /** --ca, --cert and --key, else DMESH_TLS_CA, DMESH_TLS_CERT and DMESH_TLS_KEY; undefined without a CA: plain. */
  tls(env: Env): ClientTlsPaths | undefined {
    const ca = this.text('ca') ?? env.DMESH_TLS_CA;
    const cert = this.text('cert') ?? env.DMESH_TLS_CERT;
    const key = this.text('key') ?? env.DMESH_TLS_KEY;
    if (ca === undefined) {
      if (cert !== undefined || key !== undefined) this.fault('--ca: expected the CA of the mesh beside --cert and --key, got nothing');
      return undefined;
    }
    const paths = { ca, cert, key };
    try {
      clientTlsFromFiles(paths);
    } catch (error) {
      this.fault(error instanceof Error ? error.message : String(error));
    }
    return paths;
  }

  /** Exactly the positional arguments named, such as ["NODE"]. */
  expectPositionals(names: readonly string[]): readonly string[] {
    for (const [index, name] of names.entries()) if (this.positionals[index] === undefined) this.fault(`expected ${name}, got nothing`);
    const extra = this.positionals.slice(names.length);
    if (extra.length > 0)
      this.fault(`expected no more than ${names.join(' ') || 'options'}, got ${extra.map((e) => JSON.stringify(e)).join(' ')}`);
    return this.positionals;
  }

  fault(text: string, hint?: string): void {
    this.#faults.push(text);
    this.#hint ??= hint;
  }

  /** Throws UsageError when anything was wrong. */
  check(): void {
    if (this.#faults.length > 0) throw new UsageError(this.#faults, this.#hint);
  }
}

/** parseArgs takes "--seed -1" for two options; as "--seed=-1" it is told apart and judged as a number. */
function withNegativeNumbers(args: readonly string[], options: Options): string[] {
  const takesValue = (text: string) =>
    Object.entries(options).some(
      ([name, { type, short }]) => type === 'string' && (text === `--${name}` || (short !== undefined && text === `-${short}`)),
    );
  const joined: string[] = [];
  const rest = [...args];
  for (let text = rest.shift(); text !== undefined; text = rest.shift()) {
    if (text === '--') return [...joined, text, ...rest];
    const value = takesValue(text) ? rest[0] : undefined;
    if (value === undefined || !/^-[.\d]/.test(value)) joined.push(text);
    else joined.push(`${text}${text.startsWith('--') ? '=' : ''}${rest.shift()}`);
  }
  return joined;
}
