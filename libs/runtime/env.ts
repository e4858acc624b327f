/**
 * Configuration comes from the environment only, is read once in main.ts, and every fault is
 * reported at once, before a port is bound. Absent means default; present but wrong is an error,
 * the empty string included.
 */

export type Env = Readonly<Record<string, string | undefined>>;

export interface Setting {
  readonly name: string;
  readonly defaultText: string;
  readonly expects: string;
  readonly help: string;
}

/** Lists every faulty setting; main.ts prints it and exits with code 64 (EX_USAGE). */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  constructor(readonly faults: readonly string[]) {
    super(faults.join('\n'));
  }
}

const DURATION_UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const BYTE_UNITS: Readonly<Record<string, number>> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };

/** A duration such as 250ms, 30s, 5m or 1h, in milliseconds; undefined when it is none. */
export function parseDurationMs(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text);
  return match ? Number(match[1]) * (DURATION_UNITS_MS[match[2] ?? ''] ?? Number.NaN) : undefined;
}

function formatDuration(ms: number): string {
  if (ms % 3_600_000 === 0 && ms > 0) return `${ms / 3_600_000}h`;
  if (ms % 60_000 === 0 && ms > 0) return `${ms / 60_000}m`;
  if (ms % 1000 === 0 && ms > 0) return `${ms / 1000}s`;
  return `${ms}ms`;
}

const ADDRESS = /^(?:\[[0-9A-Fa-f:.]+\]|[^\s:[\]]+):(\d{1,5})$/;
const ADDRESS_EXPECTED = 'host:port such as 127.0.0.1:7001';

function parseAddress(text: string): string | undefined {
  return Number(ADDRESS.exec(text)?.[1]) <= 65_535 ? text : undefined;
}

/** Only this machine can reach it. By its text: a name other than localhost may be any machine's. */
export function isLoopback(address: string): boolean {
  return /^(?:127\.\d{1,3}\.\d{1,3}\.\d{1,3}|localhost|\[::1\]):\d+$/.test(address);
}

/** Reads settings, remembers them for --help, and collects faults instead of throwing at the first. */
export class EnvReader {
  readonly settings: Setting[] = [];
  readonly #faults: string[] = [];
  readonly #prefixes: string[];

  /** `prefix` starts every name this reader is responsible for, such as DMESH_ROUTER_. */
  constructor(
    private readonly env: Env,
    prefix: string,
  ) {
    this.#prefixes = [prefix];
  }

  string(name: string, fallback: string, help: string): string {
    return this.#read(name, { fallback, fallbackText: fallback, expects: 'text', help }, (text) => (text === '' ? undefined : text));
  }

  optionalString(name: string, help: string): string | undefined {
    return this.#read<string | undefined>(name, { fallback: undefined, fallbackText: '(none)', expects: 'text', help }, (text) =>
      text === '' ? undefined : text,
    );
  }

  choice<const T extends string>(name: string, fallback: T, choices: readonly T[], help: string): T {
    const expects = `one of ${choices.join(', ')}`;
    return this.#read(name, { fallback, fallbackText: fallback, expects, help }, (text) => choices.find((choice) => choice === text));
  }

  boolean(name: string, fallback: boolean, help: string): boolean {
    return this.#read(name, { fallback, fallbackText: String(fallback), expects: 'true or false', help }, (text) =>
      text === 'true' ? true : text === 'false' ? false : undefined,
    );
  }

  integer(name: string, fallback: number, range: { min: number; max: number }, help: string): number {
    const expects = `an integer from ${range.min} to ${range.max}`;
    return this.#read(name, { fallback, fallbackText: String(fallback), expects, help }, (text) => {
      const value = Number(text);
      return /^-?\d+$/.test(text) && value >= range.min && value <= range.max ? value : undefined;
    });
  }

  number(name: string, fallback: number, range: { min: number; max: number }, help: string): number {
    const expects = `a number from ${range.min} to ${range.max}`;
    return this.#read(name, { fallback, fallbackText: String(fallback), expects, help }, (text) => {
      const value = Number(text);
      return /^-?\d+(\.\d+)?$/.test(text) && value >= range.min && value <= range.max ? value : undefined;
    });
  }

  durationMs(name: string, fallback: number, help: string): number {
    const expects = 'a duration such as 250ms, 30s or 5m';
    return this.#read(name, { fallback, fallbackText: formatDuration(fallback), expects, help }, parseDurationMs);
  }

  bytes(name: string, fallback: number, help: string): number {
    const expects = 'a size such as 512KiB or 64MiB';
    return this.#read(name, { fallback, fallbackText: `${fallback / 1024 ** 2}MiB`, expects, help }, (text) => {
      const match = /^(\d+)(B|KiB|MiB|GiB)$/.exec(text);
      return match ? Number(match[1]) * (BYTE_UNITS[match[2] ?? ''] ?? Number.NaN) : undefined;
    });
  }

  /** host:port; an IPv6 host stands in brackets. */
  address(name: string, fallback: string, help: string): string {
    return this.#read(name, { fallback, fallbackText: fallback, expects: ADDRESS_EXPECTED, help }, parseAddress);
  }

  optionalAddress(name: string, help: string): string | undefined {
    const setting = { fallback: undefined, fallbackText: '(none)', expects: ADDRESS_EXPECTED, help };
    return this.#read<string | undefined>(name, setting, parseAddress);
  }

  /** Makes this reader responsible for names that start so, too: a misspelt one is a fault. */
  claim(prefix: string): void {
    this.#prefixes.push(prefix);
  }

  /** Adds a fault that a single reading could not see. */
  fault(text: string): void {
    this.#faults.push(text);
  }

  /** Returns `config` or throws ConfigError with every fault, misspelt names under our prefixes included. */
  done<T>(config: T): T {
    const known = new Set(this.settings.map((setting) => setting.name));
    for (const name of Object.keys(this.env)) {
      const ours = this.#prefixes.some((prefix) => name.startsWith(prefix));
      if (ours && !known.has(name)) this.#faults.push(`${name}: no such setting; --help lists them`);
    }
    if (this.#faults.length > 0) throw new ConfigError(this.#faults);
    return config;
  }

  #read<T>(
    name: string,
    setting: { fallback: T; fallbackText: string; expects: string; help: string },
    parse: (text: string) => T | undefined,
  ): T {
    this.settings.push({ name, defaultText: setting.fallbackText, expects: setting.expects, help: setting.help });
    const text = this.env[name];
    if (text === undefined) return setting.fallback;
    const value = parse(text);
    if (value === undefined) {
      this.#faults.push(`${name}: expected ${setting.expects}, got ${JSON.stringify(text)}`);
      return setting.fallback;
    }
    return value;
  }
}

/** The --help text: every setting with its default and what it takes. */
export function describeSettings(settings: readonly Setting[]): string {
  return settings.map((s) => `  ${s.name}\n      ${s.help}\n      ${s.expects}; default ${s.defaultText}`).join('\n');
}
