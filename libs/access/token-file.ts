/**
 * The token file: a JSON list of entries. Everything in it is checked and every fault is named at once;
 * a file with one fault is refused as a whole, because half a list would lock callers out in silence.
 */
import { PRIORITIES } from '#scheduling';
import { isHash } from './secret-hash.js';
import { DEFAULT_LIMITS, TOKEN_ID, type Token } from './token.js';

export type ParsedTokens =
  | { readonly ok: true; readonly tokens: readonly Token[] }
  | { readonly ok: false; readonly faults: readonly string[] };

/** What callers without a token are called; no token may name it. */
export const ANONYMOUS_TENANT = 'anonymous';
/** Travels as gRPC metadata and as a label of metrics. */
const TENANT = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const MAX_TOKEN_COUNT = 10_000;
const MAX_FAULT_COUNT = 20;
const MAX_RATE = 1e6;

const FIELDS: readonly string[] = [
  'id',
  'tenant',
  'hash',
  'maxPriority',
  'ratePerSec',
  'burst',
  'gpuSecondsPerMinute',
  'models',
  'admin',
  'actsFor',
] satisfies readonly (keyof Token)[];

export function isTenant(text: string): boolean {
  return TENANT.test(text);
}

export function parseTokenFile(text: string): ParsedTokens {
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch {
    return { ok: false, faults: ['expected JSON, got something else'] }; // the parser's own words quote the file, hashes included
  }
  if (!Array.isArray(list)) return { ok: false, faults: ['expected a list of tokens'] };
  if (list.length > MAX_TOKEN_COUNT) return { ok: false, faults: [`expected at most ${MAX_TOKEN_COUNT} tokens, got ${list.length}`] };
  const faults: string[] = [];
  const tokens = list.map((entry: unknown, index) => parseEntry(entry, (text) => void faults.push(`[${index}]${text}`)));
  if (faults.length === 0) faults.push(...faultsBetween(tokens));
  if (faults.length === 0) return { ok: true, tokens };
  const more = faults.length - MAX_FAULT_COUNT;
  return { ok: false, faults: more > 0 ? [...faults.slice(0, MAX_FAULT_COUNT), `and ${more} more`] : faults };
}

/** As the file is written. */
export function formatTokenFile(tokens: readonly Token[]): string {
  return `${JSON.stringify(tokens, null, 2)}\n`;
}

function parseEntry(entry: unknown, fault: (text: string) => void): Token {
  const isObject = typeof entry === 'object' && entry !== null && !Array.isArray(entry);
  if (!isObject) fault(': expected an object');
  const fields = (isObject ? entry : {}) as Readonly<Record<string, unknown>>;
  const field = <T>(name: keyof Token, expects: string, fallback: T, accept: (value: unknown) => value is T): T => {
    const value = fields[name];
    if (value === undefined) return fallback;
    if (accept(value)) return value;
    fault(`.${name}: expected ${expects}`);
    return fallback;
  };
  const needed = (name: keyof Token, expects: string, accept: (value: string) => boolean): string => {
    const value = fields[name];
    if (isObject && !(typeof value === 'string' && accept(value))) fault(`.${name}: expected ${expects}`);
    return String(value);
  };
  const amount =
    (min: number) =>
    (value: unknown): value is number =>
      typeof value === 'number' && Number.isFinite(value) && value >= min && value <= MAX_RATE;
  for (const name of Object.keys(fields)) {
    if (!FIELDS.includes(name)) fault(`: expected the fields ${FIELDS.join(', ')}, got ${JSON.stringify(name.slice(0, 64))}`);
  }
  return {
    id: needed('id', 'up to 64 letters, digits and -', (value) => TOKEN_ID.test(value)),
    tenant: needed(
      'tenant',
      `a name of letters, digits, . _ and -, other than ${ANONYMOUS_TENANT}`,
      (value) => isTenant(value) && value !== ANONYMOUS_TENANT,
    ),
    hash: needed('hash', 'what "dmesh token add" wrote', isHash),
    maxPriority: field('maxPriority', `one of ${PRIORITIES.join(', ')}`, 'normal', isPriority),
    ratePerSec: field<number>('ratePerSec', 'a number above 0', DEFAULT_LIMITS.ratePerSec, amount(0.001)),
    burst: field<number>('burst', 'a number from 1', DEFAULT_LIMITS.burst, amount(1)),
    gpuSecondsPerMinute: field<number | undefined>(
      'gpuSecondsPerMinute',
      'a number above 0',
      DEFAULT_LIMITS.gpuSecondsPerMinute,
      amount(0.001),
    ),
    models: field<readonly string[] | undefined>('models', 'a list of names', undefined, isNames),
    admin: field<boolean>('admin', 'true or false', false, isFlag),
    actsFor: field<boolean>('actsFor', 'true or false', false, isFlag),
  };
}

/** What is wrong with entries only beside each other. */
function faultsBetween(tokens: readonly Token[]): string[] {
  const faults: string[] = [];
  const ids = new Set<string>();
  const firstOf = new Map<string, Token>();
  for (const [index, token] of tokens.entries()) {
    if (ids.has(token.id)) faults.push(`[${index}].id: expected each once, ${token.id} stands there twice`);
    ids.add(token.id);
    const first = firstOf.get(token.tenant) ?? token;
    firstOf.set(token.tenant, first);
    for (const name of ['ratePerSec', 'burst', 'gpuSecondsPerMinute'] as const) {
      if (token[name] !== first[name])
        faults.push(`[${index}].${name}: expected the same for all tokens of ${token.tenant}, they share one account`);
    }
  }
  return faults;
}

function isPriority(value: unknown): value is Token['maxPriority'] {
  return PRIORITIES.some((name) => name === value);
}

function isFlag(value: unknown): value is boolean {
  return typeof value === 'boolean';
}

function isNames(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((name) => typeof name === 'string' && name !== '');
}
