/**
 * The one door to NATS. It never blocks a start and never gives up: the mesh serves what it knows
 * while NATS is away, so a Bus exists at once, connects in the background and says so.
 *
 *   dialing ── greeted ──► connected ── lost or stale ──► waiting (0.5 s + jitter) ──► dialing
 *   any of them ── close() ──► closed
 *
 * Every connection is a new one of the vendor's, to which all subscriptions are attached again: the
 * vendor's own reconnect leaks a socket for each try against a stalled server (see knock.ts), and
 * gives up for good after two refused logins. The price: only servers named in the URL are tried,
 * not those a cluster tells of. Name them all.
 */
import { createSecureContext } from 'node:tls';
import { connect, DebugEvents, ErrorCode, Events, type NatsConnection, NatsError, type TlsOptions } from 'nats';
import type { Clock, Emit, Random } from '#core';
import { type ClientTls, explainTlsFailure, peerOptions } from '#tls';
import { type BusCredentials, credentialOptions } from './credentials.js';
import type { BusEvent } from './events.js';
import { knock } from './knock.js';
import { parseServers, type ServerAddress, serverName } from './server-list.js';
import { busAway, statusFromNats } from './status-from-nats.js';

/** The vendor notices a silent server after pingInterval × (maxPingOut + 1): 6 s. Its default takes minutes. */
const PING_INTERVAL_MS = 2000;
const MAX_PINGS_OUT = 2;
const CONNECT_TIMEOUT_MS = 2000;
const RECONNECT_WAIT_MS = 500;
/** Spreads a thousand clients that lost the same server. */
const RECONNECT_JITTER_MS = 1000;
const FLUSH_TIMEOUT_MS = 500;

export interface BusOptions {
  /** nats://host:4222, several separated by commas. */
  readonly url: string;
  /** Shown by NATS's own tools, such as "router-a" or "node-gpu0". */
  readonly name: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly emit: Emit<BusEvent>;
  readonly credentials?: BusCredentials | undefined;
  /** How to speak TLS to servers named tls://; absent: with the CAs that Node knows. Asked for at each connection. */
  readonly tls?: ClientTls | undefined;
  /** Default 2000: silence of the server is noticed after three of these. */
  readonly pingIntervalMs?: number;
}

export interface BusMessage {
  readonly subject: string;
  readonly data: Uint8Array;
  /** False when nobody asked for an answer. */
  respond(payload: string | Uint8Array): boolean;
}

export interface Bus {
  readonly connected: boolean;
  /** At most once, and never kept for later: false means NATS is away and the message is dropped. */
  publish(subject: string, payload: string | Uint8Array): boolean;
  /** Survives reconnects. Returns what ends it. A handler that throws becomes an event. */
  subscribe(subject: string, handler: (message: BusMessage) => void): () => void;
  /** Throws StatusError: UNAVAILABLE when NATS is away, NOT_FOUND when nobody listens, DEADLINE_EXCEEDED. */
  request(subject: string, payload: string | Uint8Array, timeoutMs: number): Promise<Uint8Array>;
  /** Tells every change, and at once when connected already. */
  onLink(listener: (connected: boolean) => void): () => void;
  /** For the other files of this lib: runs with every new vendor connection; what it returns undoes it. */
  attach(attachment: (connection: NatsConnection) => () => void): () => void;
  /** Resolves when the server has what was published, or after half a second. */
  flush(): Promise<void>;
  /** Flushes and leaves for good. Safe to repeat. */
  close(): Promise<void>;
}

/** With the CAs that Node knows. */
const SYSTEM_TLS: ClientTls = { context: () => createSecureContext() };

interface Attachment {
  readonly attach: (connection: NatsConnection) => () => void;
  detach: () => void;
}

/** Returns at once; throws only a RangeError about the URL. */
export function connectBus(options: BusOptions): Bus {
  return new MeshBus(options);
}

class MeshBus implements Bus {
  readonly #options: BusOptions;
  readonly #servers: readonly ServerAddress[];
  readonly #attachments = new Set<Attachment>();
  readonly #linkListeners = new Set<(connected: boolean) => void>();
  readonly #closing = new AbortController();
  readonly #finished: Promise<void>;
  #connection: NatsConnection | undefined;

  constructor(options: BusOptions) {
    this.#options = options;
    this.#servers = parseServers(options.url);
    this.#finished = this.#run();
  }

  get connected(): boolean {
    return this.#connection !== undefined;
  }

  publish(subject: string, payload: string | Uint8Array): boolean {
    const connection = this.#connection;
    if (!connection || connection.isClosed()) return false;
    connection.publish(subject, payload);
    return true;
  }

  subscribe(subject: string, handler: (message: BusMessage) => void): () => void {
    return this.attach((connection) => {
      const subscription = connection.subscribe(subject, {
        callback: (error, message) => {
          if (error) return this.#options.emit({ type: 'busError', cause: `${subject}: ${error.message}` });
          guard(this.#options.emit, subject, () => handler(message));
        },
      });
      return () => subscription.unsubscribe();
    });
  }

  async request(subject: string, payload: string | Uint8Array, timeoutMs: number): Promise<Uint8Array> {
    const connection = this.#connection;
    if (!connection) throw busAway();
    try {
      return (await connection.request(subject, payload, { timeout: timeoutMs })).data;
    } catch (reason) {
      // The vendor ends requests as timed out when their connection ends.
      throw connection.isClosed() ? busAway(reason) : statusFromNats(reason, subject, timeoutMs);
    }
  }

  onLink(listener: (connected: boolean) => void): () => void {
    this.#linkListeners.add(listener);
    if (this.connected) listener(true);
    return () => void this.#linkListeners.delete(listener);
  }

  attach(attach: (connection: NatsConnection) => () => void): () => void {
    const attachment: Attachment = { attach, detach: () => {} };
    this.#attachments.add(attachment);
    if (this.#connection) attachment.detach = attach(this.#connection);
    return () => {
      if (this.#attachments.delete(attachment) && this.#connection) attachment.detach();
    };
  }

  async flush(): Promise<void> {
    if (!this.#connection) return;
    const limit = new AbortController();
    const flushed = this.#connection.flush().catch(() => {}); // lost on the way: the link listeners are told
    await Promise.race([flushed, this.#options.clock.sleep(FLUSH_TIMEOUT_MS, limit.signal).catch(() => {})]);
    limit.abort();
  }

  async close(): Promise<void> {
    await this.flush();
    this.#closing.abort();
    await this.#connection?.close();
    await this.#finished;
  }

  async #run(): Promise<void> {
    let lostAt: number | undefined;
    while (!this.#closing.signal.aborted) {
      const dialed = await this.#dial(lostAt !== undefined);
      if (!dialed) return;
      const server = serverName(dialed.server);
      this.#connection = dialed.connection;
      for (const attachment of this.#attachments) attachment.detach = attachment.attach(dialed.connection);
      this.#watch(dialed.connection, server).catch(() => {}); // closed() below tells of the end of a connection
      const now = this.#options.clock.now();
      this.#tell(lostAt === undefined ? { type: 'busConnected', server } : { type: 'busReconnected', server, awayMs: now - lostAt });
      this.#tellLink(true);

      const error = await dialed.connection.closed();
      this.#connection = undefined;
      for (const attachment of this.#attachments) attachment.detach = () => {};
      lostAt = this.#options.clock.now();
      // Leaving on purpose is no news.
      const cause = error instanceof Error ? error.message : 'connection lost';
      if (!this.#closing.signal.aborted) this.#tell({ type: 'busDisconnected', server, cause });
      this.#tellLink(false);
    }
  }

  /** Tries the servers in turn, for as long as it takes; undefined when closed meanwhile. */
  async #dial(waitFirst: boolean): Promise<{ connection: NatsConnection; server: ServerAddress } | undefined> {
    const { clock, random } = this.#options;
    const { signal } = this.#closing;
    const firstIndex = Math.floor(random() * this.#servers.length);
    let lastCause = '';
    for (let attempt = 0; ; attempt++) {
      if (attempt > 0 || waitFirst) await clock.sleep(RECONNECT_WAIT_MS + random() * RECONNECT_JITTER_MS, signal).catch(() => {});
      if (signal.aborted) return undefined;
      const server = this.#servers[(firstIndex + attempt) % this.#servers.length];
      if (!server) return undefined;
      try {
        await knock(server, clock, CONNECT_TIMEOUT_MS, signal);
        const connection = await connect(this.#vendorOptions(server));
        if (!signal.aborted) return { connection, server };
        await connection.close();
        return undefined;
      } catch (reason) {
        if (signal.aborted) return undefined;
        const cause = causeOf(reason, server.tls);
        if (cause !== lastCause) this.#tell({ type: 'busConnectFailed', server: serverName(server), cause });
        lastCause = cause;
      }
    }
  }

  #vendorOptions(server: ServerAddress): Parameters<typeof connect>[0] {
    const inUrl = server.user === undefined ? {} : { user: server.user, pass: server.password ?? '' };
    return {
      servers: serverName(server),
      name: this.#options.name,
      reconnect: false,
      timeout: CONNECT_TIMEOUT_MS,
      pingInterval: this.#options.pingIntervalMs ?? PING_INTERVAL_MS,
      maxPingOut: MAX_PINGS_OUT,
      ...(server.tls ? { tls: this.#tlsOptions(server) } : {}),
      ...inUrl,
      ...credentialOptions(this.#options.credentials),
    };
  }

  /** The vendor hands them on to node:tls, though its type names files and PEM text only. */
  #tlsOptions(server: ServerAddress): TlsOptions {
    return { ...peerOptions(server.host, this.#options.tls ?? SYSTEM_TLS) } as TlsOptions;
  }

  async #watch(connection: NatsConnection, server: string): Promise<void> {
    for await (const status of connection.status()) {
      if (status.type === DebugEvents.StaleConnection) {
        this.#tell({ type: 'busStale', server });
        await connection.close(); // the vendor's own way first waits for a write that a full socket never ends
      } else if (status.type === Events.Error) {
        const { operation, subject } = status.permissionContext ?? {};
        this.#tell({ type: 'busError', cause: operation ? `not allowed to ${operation} ${subject}` : String(status.data) });
      }
    }
  }

  #tell(event: BusEvent): void {
    this.#options.emit(event);
  }

  #tellLink(connected: boolean): void {
    for (const listener of [...this.#linkListeners]) guard(this.#options.emit, 'link', () => listener(connected));
  }
}

/** A throw inside a vendor callback would end the vendor's reader, in a turn of the event loop the process; it ends here instead. */
export function guard(emit: Emit<BusEvent>, subject: string, run: () => void): void {
  try {
    run();
  } catch (error) {
    emit({ type: 'busHandlerFailed', subject, error });
  }
}

/** What the vendor or OpenSSL said, in words for an operator where TLS had a part in it. */
function causeOf(reason: unknown, tls: boolean): string {
  const text = reason instanceof Error ? reason.message : String(reason);
  const why = explainTlsFailure(text, true);
  if (tls)
    return reason instanceof NatsError && reason.code === ErrorCode.ServerOptionNotAvailable ? 'it does not speak TLS' : (why ?? text);
  // The vendor goes over to TLS by itself when the server demands it, and trusts only the CAs that Node knows.
  return /certificate/.test(why ?? '') ? `it demands TLS (${why}): NATS_URL has to begin with tls://` : text;
}
