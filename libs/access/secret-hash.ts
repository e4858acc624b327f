/**
 * A secret as it may lie in a file: scrypt (RFC 7914) with a salt of its own, written as
 * `$scrypt$ln=15,r=8,p=1$salt$hash` (the PHC string format), so that the price can be raised for new
 * tokens while old ones stay valid. Hashing runs on libuv's threads; the event loop goes on.
 */
import { randomBytes, type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto';

interface Price {
  /** log2 of N. */
  readonly ln: number;
  readonly r: number;
  readonly p: number;
}

/** 32 MiB and about a tenth of a second. */
const PRICE: Price = { ln: 15, r: 8, p: 1 };
/** A file must not make a router compute for minutes or take all memory. */
const HIGHEST: Price = { ln: 17, r: 8, p: 4 };
const LOWEST: Price = { ln: 10, r: 8, p: 1 };
const HASH_BYTES = 32;
const FORMAT = /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{16,86})\$([A-Za-z0-9+/]{43})$/;

export async function hashSecret(secret: string, price: Price = PRICE): Promise<string> {
  const salt = randomBytes(16);
  const hash = await derive(secret, salt, price);
  return `$scrypt$ln=${price.ln},r=${price.r},p=${price.p}$${plain(salt)}$${plain(hash)}`;
}

/** Compares in constant time. False also for what is no hash. */
export async function matchesHash(secret: string, text: string): Promise<boolean> {
  const parts = readHash(text);
  if (!parts) return false;
  return timingSafeEqual(await derive(secret, parts.salt, parts.price), parts.hash);
}

/** Whether it is a hash that this program can and will compare with. */
export function isHash(text: string): boolean {
  return readHash(text) !== undefined;
}

function readHash(text: string): { price: Price; salt: Buffer; hash: Buffer } | undefined {
  const [, ln, r, p, salt, hash] = FORMAT.exec(text) ?? [];
  if (salt === undefined || hash === undefined) return undefined;
  const price = { ln: Number(ln), r: Number(r), p: Number(p) };
  const within = (['ln', 'r', 'p'] as const).every((name) => price[name] >= LOWEST[name] && price[name] <= HIGHEST[name]);
  return within ? { price, salt: Buffer.from(salt, 'base64'), hash: Buffer.from(hash, 'base64') } : undefined;
}

function derive(secret: string, salt: Buffer, { ln, r, p }: Price): Promise<Buffer> {
  // Node's own limit is one byte short of what N=2^15 needs.
  const options: ScryptOptions = { N: 2 ** ln, r, p, maxmem: 2 * 128 * r * (2 ** ln + p) };
  return new Promise((resolve, reject) => {
    scrypt(secret, salt, HASH_BYTES, options, (error, key) => (error ? reject(error) : resolve(key)));
  });
}

function plain(bytes: Buffer): string {
  return bytes.toString('base64').replaceAll('=', '');
}
