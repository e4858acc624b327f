/**
 * The file of webhooks: for each tenant the secret that signs its messages, and the URL of jobs that name none.
 *
 *   { "tenants": { "acme": { "secret": "whsec_…", "url": "https://example.com/hook" } }, "default": { "secret": "whsec_…" } }
 *
 * `default` holds for tenants that are not listed; who shares a secret could sign for the others. A file with one
 * fault is refused as a whole, and every fault is named at once; secrets are not repeated in them.
 */
import type { IsAllowed } from './addresses.js';
import { checkReceiverUrl } from './receiver-url.js';

export interface TenantWebhook {
  /** As Standard Webhooks writes it: whsec_ and base64. */
  readonly secret: string;
  /** Of jobs that name none; undefined: those tell nobody. */
  readonly url: string | undefined;
}

export interface WebhookSettings {
  readonly tenants: ReadonlyMap<string, TenantWebhook>;
  /** Of tenants that are not listed; undefined: they have none. */
  readonly fallback: TenantWebhook | undefined;
}

export type ParsedWebhooks =
  | { readonly ok: true; readonly settings: WebhookSettings }
  | { readonly ok: false; readonly faults: readonly string[] };

const MAX_FAULT_COUNT = 20;
/** Standard Webhooks' bounds. */
const SECRET_BYTES = { min: 24, max: 64 };

type Fields = Readonly<Record<string, unknown>>;

export function parseWebhookFile(text: string, isAllowed: IsAllowed): ParsedWebhooks {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    return { ok: false, faults: ['expected JSON, got something else'] }; // the parser's own words quote the file, secrets included
  }
  const faults: string[] = [];
  const parse = (where: string, value: unknown) => parseEntry(value, { isAllowed, fault: (text) => void faults.push(`${where}${text}`) });
  const file = fieldsOf(content, ['tenants', 'default'], (text) => void faults.push(`the file${text}`));
  const listed = file.tenants === undefined ? {} : fieldsOf(file.tenants, undefined, (text) => void faults.push(`tenants${text}`));
  const tenants = new Map(Object.entries(listed).map(([name, value]) => [name, parse(`tenants.${name}`, value)]));
  const fallback = file.default === undefined ? undefined : parse('default', file.default);
  if (faults.length === 0) return { ok: true, settings: { tenants, fallback } };
  const more = faults.length - MAX_FAULT_COUNT;
  return { ok: false, faults: more > 0 ? [...faults.slice(0, MAX_FAULT_COUNT), `and ${more} more`] : faults };
}

function parseEntry(value: unknown, { isAllowed, fault }: { isAllowed: IsAllowed; fault: (text: string) => void }): TenantWebhook {
  const { secret, url } = fieldsOf(value, ['secret', 'url'], fault);
  const { min, max } = SECRET_BYTES;
  if (typeof secret !== 'string' || !isSecret(secret)) fault(`.secret: expected whsec_ and ${min} to ${max} bytes in base64`);
  if (url === undefined) return { secret: String(secret), url };
  const checked = typeof url === 'string' ? checkReceiverUrl(url, isAllowed) : { ok: false as const, fault: 'expected text' };
  if (!checked.ok) fault(`.url: ${checked.fault}`);
  return { secret: String(secret), url: String(url) };
}

function isSecret(text: string): boolean {
  const base64 = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(text)?.[1];
  if (base64 === undefined || base64.length % 4 !== 0) return false;
  const byteCount = Buffer.from(base64, 'base64').length;
  return byteCount >= SECRET_BYTES.min && byteCount <= SECRET_BYTES.max;
}

/** Empty when it is no object. */
function fieldsOf(value: unknown, names: readonly string[] | undefined, fault: (text: string) => void): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    fault(': expected an object');
    return {};
  }
  for (const name of Object.keys(value)) {
    if (names?.includes(name) === false) fault(`: expected the fields ${names.join(', ')}, got ${JSON.stringify(name.slice(0, 64))}`);
  }
  return value as Fields;
}
