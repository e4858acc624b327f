/**
 * Who has pictures drawn for us, and what can be asked for there? Any router will do: they share the nodes in one
 * order. The one with the fewest of our calls is asked; one that did not answer is passed over for a moment.
 *
 * Routers are those that announce themselves on NATS, or the ones that the configuration names.
 */
import { generation } from '#contracts';
import { type Clock, Code, Reason, StatusError } from '#core';
import { Channel } from '#grpc';
import type { ClientTls } from '#tls';

export interface RoutersOptions {
  readonly clock: Clock;
  /** host:port of those that live, asked at each call. */
  readonly addresses: () => readonly string[];
  /** Shows who we are, and that we may act for tenants. */
  readonly token: () => string | undefined;
  readonly tls?: ClientTls | undefined;
}

export interface DrawOptions {
  readonly tenant: string;
  /** The same for every attempt: it decides what a route leads to where the tenant does not. */
  readonly routeKey: string;
  readonly deadlineAt: number;
  readonly signal: AbortSignal;
}

interface Link {
  readonly address: string;
  readonly channel: Channel;
  callCount: number;
  /** Not asked before then while there is another, clock milliseconds. */
  avoidUntil: number;
}

const Pictures = generation.ImageGenerationServiceService;
/** A router that froze holds our jobs up for twice this. */
const KEEPALIVE_MS = 5000;
const AVOID_MS = 2000;
const UNANSWERED: ReadonlySet<string> = new Set([Reason.CONNECT_FAILED, Reason.CONNECTION_LOST, Reason.DRAINING]);
const MODELS_TIMEOUT_MS = 5000;

export class Routers {
  readonly #options: RoutersOptions;
  readonly #links = new Map<string, Link>();
  #turn = 0;

  constructor(options: RoutersOptions) {
    this.#options = options;
  }

  /** The events of one picture. Throws what the router answers; UNAVAILABLE/CONNECT_FAILED when there is none. */
  async *draw(
    request: generation.GenerateRequest,
    { tenant, routeKey, ...call }: DrawOptions,
  ): AsyncGenerator<generation.GenerateEvent, void> {
    const link = this.#pick();
    link.callCount++;
    const timeoutMs = Math.round(call.deadlineAt - this.#options.clock.now());
    try {
      const metadata = { ...this.#metadata(), 'x-mesh-tenant': tenant, 'x-mesh-route-key': routeKey };
      yield* link.channel.serverStream(Pictures.generateStream, request, { ...call, metadata });
    } catch (thrown) {
      this.#noteFailure(link, thrown);
      throw inPlainWords(thrown, timeoutMs);
    } finally {
      link.callCount--;
      this.#dropGone();
    }
  }

  /** What can be asked for now. */
  async models(): Promise<readonly generation.Model[]> {
    const { clock } = this.#options;
    const link = this.#pick();
    link.callCount++;
    try {
      const call = { metadata: this.#metadata(), deadlineAt: clock.now() + MODELS_TIMEOUT_MS };
      return (await link.channel.unary(Pictures.listModels, {}, call)).response.models;
    } catch (thrown) {
      this.#noteFailure(link, thrown);
      throw thrown;
    } finally {
      link.callCount--;
    }
  }

  close(): void {
    for (const { channel } of this.#links.values()) channel.close();
    this.#links.clear();
  }

  #metadata(): Record<string, string> {
    const token = this.#options.token();
    return token === undefined ? {} : { authorization: `Bearer ${token}` };
  }

  /** Equals take turns. */
  #pick(): Link {
    const { addresses, clock } = this.#options;
    const now = clock.now();
    const links = addresses().map((address) => this.#linkTo(address));
    if (links.length === 0) throw noRouter();
    const start = this.#turn++;
    const inTurn = links.map((_, index) => links[(start + index) % links.length] as Link);
    const willing = inTurn.filter(({ avoidUntil }) => avoidUntil <= now);
    return (willing.length > 0 ? willing : inTurn).reduce((best, link) => (link.callCount < best.callCount ? link : best));
  }

  #linkTo(address: string): Link {
    const known = this.#links.get(address);
    if (known) return known;
    const { clock, tls } = this.#options;
    const link = { address, channel: new Channel(address, { clock, tls, keepaliveMs: KEEPALIVE_MS }), callCount: 0, avoidUntil: 0 };
    this.#links.set(address, link);
    return link;
  }

  #noteFailure(link: Link, thrown: unknown): void {
    if (UNANSWERED.has(StatusError.from(thrown).reason)) link.avoidUntil = this.#options.clock.now() + AVOID_MS;
  }

  /** Routers that are gone, once nothing waits for them. */
  #dropGone(): void {
    const addresses = this.#options.addresses();
    for (const link of this.#links.values()) {
      if (link.callCount > 0 || addresses.includes(link.address)) continue;
      link.channel.close();
      this.#links.delete(link.address);
    }
  }
}

function noRouter(): StatusError {
  return new StatusError({ code: Code.UNAVAILABLE, reason: Reason.CONNECT_FAILED, message: 'no router is there to draw it' });
}

/** What ends an attempt is kept in its job and shown; what grpc-js says of a deadline is meant for its own authors. */
function inPlainWords(thrown: unknown, timeoutMs: number): unknown {
  if (!(thrown instanceof StatusError) || !thrown.message.startsWith('Deadline exceeded')) return thrown;
  const { code, reason, details } = thrown;
  const message = `not drawn within the ${(timeoutMs / 1000).toFixed(1)} s that it had left`;
  return new StatusError({ ...details, code, reason, message, cause: thrown });
}
