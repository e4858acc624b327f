/**
 * What a caller shows and what the mesh knows of it. `dm_<id>_<secret>`: the id finds the entry and may be
 * read by anybody, the secret is 192 bits of chance and is kept by its owner alone.
 */
import { randomBytes } from 'node:crypto';
import type { Priority } from '#scheduling';

/** One entry of the token file. Tokens of one tenant share one account, so they carry the same limits. */
export interface Token {
  readonly id: string;
  /** Who pays: fairness, limits and usage are by tenant. */
  readonly tenant: string;
  /** The secret's slow hash (secret-hash.ts). */
  readonly hash: string;
  /** The most urgent class it may ask for. */
  readonly maxPriority: Priority;
  /** Requests a second over time … */
  readonly ratePerSec: number;
  /** … and so many at once. */
  readonly burst: number;
  /** GPU time a minute over time; undefined: no limit. */
  readonly gpuSecondsPerMinute: number | undefined;
  /** Names of the models it may ask for; undefined: all. */
  readonly models: readonly string[] | undefined;
  /** May use MeshAdminService. */
  readonly admin: boolean;
  /** May ask for pictures in the name of any tenant, who then pays: for the jobs service. */
  readonly actsFor: boolean;
}

export const DEFAULT_LIMITS = { ratePerSec: 5, burst: 10, gpuSecondsPerMinute: undefined } as const;

/** The text to hand to its owner, and its parts. Never equal to another. */
export function makeToken(): { readonly id: string; readonly secret: string; readonly text: string } {
  const id = randomBytes(6).toString('hex');
  const secret = randomBytes(24).toString('base64url');
  return { id, secret, text: `dm_${id}_${secret}` };
}

export const TOKEN_ID = /^[A-Za-z0-9-]{1,64}$/;
const TOKEN = /^dm_([A-Za-z0-9-]{1,64})_([A-Za-z0-9_-]{16,128})$/;

/** Undefined when the text is no token at all. */
export function readToken(text: string): { readonly id: string; readonly secret: string } | undefined {
  const [, id, secret] = TOKEN.exec(text) ?? [];
  return id === undefined || secret === undefined ? undefined : { id, secret };
}
