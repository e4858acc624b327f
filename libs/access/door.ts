/**
 * The door of a service. With a token file, who calls must show a token of it; without one everybody is the
 * tenant `anonymous`. No token and a wrong one are told apart for nobody, and cost no more than a SHA-256.
 */
import type { Clock } from '#core';
import { Accounts, type Charge } from './accounts.js';
import { AddressLimit } from './address-limit.js';
import type { Token } from './token.js';
import { rateLimited, unauthenticated } from './turned-away.js';
import { TokenVerifier } from './verifier.js';

export interface DoorOptions {
  readonly clock: Clock;
  /** False: everybody may enter. */
  readonly needsToken: boolean;
  /** Requests a second from each address of an open mesh; 0: no limit. */
  readonly anonymousRatePerSec: number;
}

/** Of a call, what the door looks at. */
export interface Knock {
  /** Keys in lower case. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Address of the caller. */
  readonly peer: string;
}

/** Several requests at once from one page are no abuse: this many seconds' worth. */
const ANONYMOUS_BURST_SEC = 2;
const BUSY_RETRY_MS = 1000;
const BEARER = /^bearer +/i;

export class Door {
  readonly #options: DoorOptions;
  readonly #verifier = new TokenVerifier();
  readonly #addresses: AddressLimit | undefined;
  readonly accounts = new Accounts();

  constructor(options: DoorOptions) {
    this.#options = options;
    const { anonymousRatePerSec: perSec } = options;
    this.#addresses = perSec > 0 ? new AddressLimit({ perSec, capacity: Math.max(1, ANONYMOUS_BURST_SEC * perSec) }) : undefined;
  }

  /** What a new token file says. */
  replace(tokens: readonly Token[]): void {
    this.#verifier.replace(tokens);
    this.accounts.replace(tokens, this.#options.clock.now());
  }

  /** Whose token it is; undefined where none is needed. Throws UNAUTHENTICATED, or RATE_LIMITED when too many strangers knock. */
  async identify({ metadata }: Knock): Promise<Token | undefined> {
    if (!this.#options.needsToken) return undefined;
    const shown = metadata.authorization;
    if (shown === undefined || !BEARER.test(shown)) throw unauthenticated();
    const verdict = await this.#verifier.verify(shown.replace(BEARER, ''));
    switch (verdict.kind) {
      case 'known':
        return verdict.token;
      case 'unknown':
        throw unauthenticated();
      case 'busy':
        throw rateLimited('the mesh', { retryAfterMs: BUSY_RETRY_MS, limit: 'few tokens not seen before are checked at a time' });
      default:
        return verdict satisfies never;
    }
  }

  /** Throws RATE_LIMITED when the tenant, or without tokens the address, has had its share. */
  countRequest(tenant: string, { peer }: Knock): void {
    const { clock, needsToken } = this.#options;
    const charge = needsToken ? this.accounts.request(tenant, clock.now()) : this.#countAddress(peer);
    if (charge.kind === 'limited') throw rateLimited(needsToken ? `tenant ${tenant}` : 'your address', charge);
  }

  #countAddress(peer: string): Charge {
    const { anonymousRatePerSec, clock } = this.#options;
    const retryAfterMs = this.#addresses?.take(peer, clock.now()) ?? 0;
    if (retryAfterMs === 0) return { kind: 'charged' };
    return { kind: 'limited', retryAfterMs, limit: `${anonymousRatePerSec} requests a second without a token` };
  }
}
