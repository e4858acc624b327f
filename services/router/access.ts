/**
 * Who may use this router, and for what (libs/access has the door itself).
 *
 * Limits are by tenant and over the mesh: what other routers gave a tenant is charged to its account here
 * (nodes tell), so routers that share a tenant's calls let in together what one would, but for the moment
 * the news takes. Callers of an open mesh have no account; DMESH_ROUTER_ANONYMOUS_RATE limits each address.
 *
 * The jobs service asks for pictures with a token of its own and in the name of those who submitted them: they pay
 * the GPU time. As requests they were counted when they were submitted.
 */
import { ANONYMOUS_TENANT, Door, type DoorOptions, forbidden, isTenant, type Token } from '#access';
import { badRequest, Code, type Emit, StatusError } from '#core';
import type { Call } from '#grpc';
import type { Served } from './dispatch/node-link.js';
import type { RouterEvent } from './events.js';
import { Visit } from './visit.js';

export interface AccessOptions extends DoorOptions {
  readonly emit: Emit<RouterEvent>;
}

type LeverPulled = Extract<RouterEvent, { type: 'leverPulled' }>;
type AnyHandler = (call: never, out: never) => Promise<unknown>;

/** Of the methods that change something: what they are to be done to, as fields of a line. */
export type Levers<Handlers> = {
  readonly [Name in keyof Handlers]?: Handlers[Name] extends (call: Call<infer Request>) => unknown
    ? (request: Request) => Readonly<Record<string, string>>
    : never;
};

export class Access {
  readonly #options: AccessOptions;
  readonly #door: Door;

  constructor(options: AccessOptions) {
    this.#options = options;
    this.#door = new Door(options);
  }

  /** What a new token file says. */
  replace(tokens: readonly Token[]): void {
    this.#door.replace(tokens);
  }

  /** Another router gave this tenant GPU time. */
  served({ tenant, costMs, actedFor }: Served): void {
    this.#door.accounts.servedElsewhere(tenant, { requestCount: actedFor ? 0 : 1, costMs }, this.#options.clock.now());
  }

  /** Lets a request for pictures in, counts it, and tells what became of it. Throws UNAUTHENTICATED or RATE_LIMITED. */
  async visited<T>(call: Call<unknown>, work: (visit: Visit) => Promise<T>): Promise<T> {
    const { clock, emit } = this.#options;
    const token = await this.#known(call);
    const named = token?.actsFor ? namedTenant(call) : undefined;
    const tenant = named ?? token?.tenant ?? ANONYMOUS_TENANT;
    const actedFor = named !== undefined;
    call.notes.tenant = tenant;
    const visit = new Visit({ call, clock, emit, accounts: this.#door.accounts, tenant, actedFor, token });
    try {
      if (!actedFor) this.#door.countRequest(tenant, call);
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
    const token = await this.#door.identify(call);
    call.notes.tenant = token?.tenant ?? ANONYMOUS_TENANT;
    if (token) call.notes.token_id = token.id;
    return token;
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
