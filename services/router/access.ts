/**
 * The door. With a token file, who calls must show a token of it; without one everybody is the tenant
 * `anonymous`. No token and a wrong one are told apart for nobody, and cost no more than a SHA-256.
 *
 * Limits are by tenant and over the mesh: what other routers gave a tenant is charged to its account here
 * (nodes tell), so routers that share a tenant's calls let in together what one would, but for the moment
 * the news takes. Callers of an open mesh have no account; DMESH_ROUTER_ANONYMOUS_RATE limits each address.
 *
 * The jobs service asks for pictures with a token of its own and in the name of those who submitted them: they pay
 * the GPU time. As requests they were counted when they were submitted.
 */
import { Accounts, AddressLimit, ANONYMOUS_TENANT, type Charge, isTenant, type Token, TokenVerifier } from '#access';
import { badRequest, type Clock, Code, type Emit, StatusError } from '#core';
import type { Call } from '#grpc';
import type { Served } from './dispatch/node-link.js';
import type { RouterEvent } from './events.js';
import { forbidden, rateLimited, unauthenticated } from './turned-away.js';
import { Visit } from './visit.js';

export interface AccessOptions {
  readonly clock: Clock;
  readonly emit: Emit<RouterEvent>;
  /** False: everybody may enter. */
  readonly needsToken: boolean;
  /** Requests a second from each address of an open mesh; 0: no limit. */
  readonly anonymousRatePerSec: number;
}

type LeverPulled = Extract<RouterEvent, { type: 'leverPulled' }>;
type AnyHandler = (call: never, out: never) => Promise<unknown>;

/** Of the methods that change something: what they are to be done to, as fields of a line. */
export type Levers<Handlers> = {
  readonly [Name in keyof Handlers]?: Handlers[Name] extends (call: Call<infer Request>) => unknown
    ? (request: Request) => Readonly<Record<string, string>>
    : never;
};

/** Several requests at once from one page are no abuse: this many seconds' worth. */
const ANONYMOUS_BURST_SEC = 2;
const BUSY_RETRY_MS = 1000;
const BEARER = /^bearer +/i;

export class Access {
  readonly #options: AccessOptions;
  readonly #verifier = new TokenVerifier();
  readonly #accounts = new Accounts();
  readonly #addresses: AddressLimit | undefined;

  constructor(options: AccessOptions) {
    this.#options = options;
    const { anonymousRatePerSec: perSec } = options;
    this.#addresses = perSec > 0 ? new AddressLimit({ perSec, capacity: Math.max(1, ANONYMOUS_BURST_SEC * perSec) }) : undefined;
  }

  /** What a new token file says. */
  replace(tokens: readonly Token[]): void {
    this.#verifier.replace(tokens);
    this.#accounts.replace(tokens, this.#options.clock.now());
  }

  /** Another router gave this tenant GPU time. */
  served({ tenant, costMs, actedFor }: Served): void {
    this.#accounts.servedElsewhere(tenant, { requestCount: actedFor ? 0 : 1, costMs }, this.#options.clock.now());
  }

  /** Lets a request for pictures in, counts it, and tells what became of it. Throws UNAUTHENTICATED or RATE_LIMITED. */
  async visited<T>(call: Call<unknown>, work: (visit: Visit) => Promise<T>): Promise<T> {
    const { clock, emit } = this.#options;
    const token = await this.#known(call);
    const named = token?.actsFor ? namedTenant(call) : undefined;
    const tenant = named ?? token?.tenant ?? ANONYMOUS_TENANT;
    const actedFor = named !== undefined;
    call.notes.tenant = tenant;
    const visit = new Visit({ call, clock, emit, accounts: this.#accounts, tenant, actedFor, token });
    try {
      if (!actedFor) this.#countRequest(tenant, call.peer);
      const result = await work(visit);
      visit.end();
      return result;
    } catch (thrown) {
      visit.end(StatusError.from(thrown));
      throw thrown;
    }
  }

  /** These handlers answer whoever has a token. */
  known<Handlers extends Readonly<Record<string, AnyHandler>>>(handlers: Handlers): Handlers {
    return guarded(handlers, async (call, handle) => {
      await this.#known(call);
      return handle();
    });
  }

  /** These handlers answer only tokens that say `admin`. Who pulled a lever, or wanted to, is told. */
  adminOnly<Handlers extends Readonly<Record<string, AnyHandler>>>(handlers: Handlers, levers: Levers<Handlers> = {}): Handlers {
    return guarded(handlers, async (call, handle, name) => {
      const subjectOf = levers[name] as ((request: unknown) => Readonly<Record<string, string>>) | undefined;
      if (subjectOf) return this.#pulled(call, { lever: name, subject: subjectOf(call.request) }, handle);
      this.#expectAdmin(await this.#known(call));
      return handle();
    });
  }

  async #pulled<T>(call: Call<unknown>, order: Pick<LeverPulled, 'lever' | 'subject'>, handle: () => Promise<T>): Promise<T> {
    const { clock, emit } = this.#options;
    const startedAt = clock.now();
    Object.assign(call.notes, order.subject);
    const token = await this.#known(call);
    const who = { tenant: token?.tenant ?? ANONYMOUS_TENANT, tokenId: token?.id ?? '', peer: call.peer };
    const tell = ({ code, reason }: Pick<LeverPulled, 'code' | 'reason'>) =>
      emit({ type: 'leverPulled', ...order, ...who, code, reason, durationMs: clock.now() - startedAt });
    try {
      this.#expectAdmin(token);
      const result = await handle();
      tell({ code: Code.OK, reason: 'OK' });
      return result;
    } catch (thrown) {
      tell(StatusError.from(thrown));
      throw thrown;
    }
  }

  #expectAdmin(token: Token | undefined): void {
    if (token?.admin === false) throw forbidden('expected a token of an administrator');
  }

  /** Who calls, told in the line of the call as well. Undefined in an open mesh. */
  async #known(call: Call<unknown>): Promise<Token | undefined> {
    const token = await this.#identify(call);
    call.notes.tenant = token?.tenant ?? ANONYMOUS_TENANT;
    if (token) call.notes.token_id = token.id;
    return token;
  }

  /** Undefined in an open mesh. */
  async #identify(call: Call<unknown>): Promise<Token | undefined> {
    if (!this.#options.needsToken) return undefined;
    const shown = call.metadata.authorization;
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

  #countRequest(tenant: string, peer: string): void {
    const nowMs = this.#options.clock.now();
    const charge = this.#options.needsToken ? this.#accounts.request(tenant, nowMs) : this.#countAddress(peer, nowMs);
    if (charge.kind === 'limited') throw rateLimited(this.#options.needsToken ? `tenant ${tenant}` : 'your address', charge);
  }

  #countAddress(peer: string, nowMs: number): Charge {
    const retryAfterMs = this.#addresses?.take(peer, nowMs) ?? 0;
    if (retryAfterMs === 0) return { kind: 'charged' };
    return { kind: 'limited', retryAfterMs, limit: `${this.#options.anonymousRatePerSec} requests a second without a token` };
  }
}

/** Whom a caller that may act for others acts for; undefined: for itself. Throws INVALID_ARGUMENT. */
function namedTenant(call: Call<unknown>): string | undefined {
  const named = call.metadata['x-mesh-tenant'];
  if (named === undefined || isTenant(named)) return named;
  throw badRequest([{ field: 'x-mesh-tenant', description: 'expected the name of a tenant' }]);
}

/** `admit` stands before each handler: it may throw, and lets the call in by `handle`. */
function guarded<Handlers extends Readonly<Record<string, AnyHandler>>>(
  handlers: Handlers,
  admit: (call: Call<unknown>, handle: () => Promise<unknown>, name: keyof Handlers & string) => Promise<unknown>,
): Handlers {
  const entries = Object.entries(handlers).map(([name, handler]) => {
    const admitted = (call: never, out: never) => admit(call, () => handler(call, out), name);
    return [name, admitted];
  });
  return Object.fromEntries(entries) as Handlers;
}
