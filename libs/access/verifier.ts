/**
 * Whose token is this? A slow hash protects the file; it must not slow down callers, nor be a lever for
 * strangers. So it runs once for each token: a secret that was right is remembered by its SHA-256, and
 * from then on any other secret for that id is wrong at the price of one SHA-256. Before that, two slow
 * hashes run at a time, few secrets wait for each id, equal ones share one hash, and wrong ones are
 * remembered as well.
 *
 * An unknown id is refused sooner than a wrong secret. Ids are no secrets, so nothing is lost by that.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { matchesHash } from './secret-hash.js';
import { readToken, type Token } from './token.js';

/** busy: too many strangers are being looked at; the same token may be right a moment later. */
export type Verdict = { readonly kind: 'known'; readonly token: Token } | { readonly kind: 'unknown' } | { readonly kind: 'busy' };

interface Entry {
  /** Replaced by a newer one with the same hash. */
  token: Token;
  /** SHA-256 of the secret once it was shown. */
  verified: Buffer | undefined;
  /** Secrets being looked at, by their SHA-256. */
  readonly pending: Map<string, Promise<Verdict>>;
}

const UNKNOWN: Verdict = { kind: 'unknown' };
const BUSY: Verdict = { kind: 'busy' };
/** Different secrets that may wait for one id, and for all. */
const MAX_PENDING_PER_ID = 4;
const MAX_PENDING = 256;
/** Slow hashes at a time: the other half of libuv's threads stays free. */
const MAX_HASHING = 2;
/** Wrong secrets remembered, the oldest forgotten first. */
const MAX_WRONG = 1000;
const MAX_TEXT_CHARS = 256;

export interface TokenVerifierOptions {
  /** The slow comparison; by argument so that tests can count it. */
  readonly matches?: (secret: string, hash: string) => Promise<boolean>;
}

export class TokenVerifier {
  #entries = new Map<string, Entry>();
  readonly #wrong = new Set<string>();
  readonly #matches: (secret: string, hash: string) => Promise<boolean>;
  readonly #turns: (() => void)[] = [];
  #hashingCount = 0;
  #pendingCount = 0;

  constructor(options: TokenVerifierOptions = {}) {
    this.#matches = options.matches ?? matchesHash;
  }

  /** The tokens of a new file. What was verified stays so where the hash is the same. */
  replace(tokens: readonly Token[]): void {
    const before = this.#entries;
    this.#wrong.clear();
    this.#entries = new Map(
      tokens.map((token) => {
        const old = before.get(token.id);
        if (old?.token.hash !== token.hash) return [token.id, { token, verified: undefined, pending: new Map() }];
        old.token = token;
        return [token.id, old];
      }),
    );
  }

  /** At once when it can be told without the slow hash; that is so for all but the first call of a token. */
  verify(text: string): Verdict | Promise<Verdict> {
    const shown = text.length <= MAX_TEXT_CHARS ? readToken(text) : undefined;
    const entry = shown && this.#entries.get(shown.id);
    if (!shown || !entry) return UNKNOWN;
    const digest = createHash('sha256').update(shown.secret).digest();
    if (entry.verified) return timingSafeEqual(entry.verified, digest) ? { kind: 'known', token: entry.token } : UNKNOWN;
    const key = digest.toString('base64');
    if (this.#wrong.has(`${shown.id} ${key}`)) return UNKNOWN;
    const same = entry.pending.get(key);
    if (same) return same;
    if (entry.pending.size >= MAX_PENDING_PER_ID || this.#pendingCount >= MAX_PENDING) return BUSY;
    this.#pendingCount++;
    const verdict = this.#look(shown, entry, digest).finally(() => {
      entry.pending.delete(key);
      this.#pendingCount--;
    });
    entry.pending.set(key, verdict);
    return verdict;
  }

  async #look({ id, secret }: { id: string; secret: string }, entry: Entry, digest: Buffer): Promise<Verdict> {
    while (this.#hashingCount >= MAX_HASHING) await new Promise<void>((resolve) => this.#turns.push(resolve));
    this.#hashingCount++;
    try {
      // Somebody else may have shown the right one meanwhile.
      const right = entry.verified ? timingSafeEqual(entry.verified, digest) : await this.#matches(secret, entry.token.hash);
      if (this.#entries.get(id) !== entry) return UNKNOWN; // revoked while it waited
      if (right) {
        entry.verified = digest;
        return { kind: 'known', token: entry.token };
      }
      this.#rememberWrong(`${id} ${digest.toString('base64')}`);
      return UNKNOWN;
    } finally {
      this.#hashingCount--;
      this.#turns.shift()?.();
    }
  }

  #rememberWrong(key: string): void {
    this.#wrong.add(key);
    if (this.#wrong.size <= MAX_WRONG) return;
    const [oldest] = this.#wrong;
    if (oldest !== undefined) this.#wrong.delete(oldest);
  }
}
