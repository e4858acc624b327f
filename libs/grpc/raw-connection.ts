/**
 * The HTTP/2 connection under a raw leg: opened, proven to be alive by pings, ended by whatever ends it.
 */
import { type ClientHttp2Session, connect } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { type Clock, Code, Reason, StatusError } from '#core';

export interface ConnectionOptions {
  readonly clock: Clock;
  /** What a peer may send before it is read, for each call and for all of them. */
  readonly windowBytes: number;
  /** As in ChannelOptions. */
  readonly connectTimeoutMs: number;
  readonly keepaliveMs?: number | undefined;
}

export interface Connection {
  readonly session: ClientHttp2Session;
  /** Resolves when the peer has spoken HTTP/2; rejects with CONNECT_FAILED. */
  readonly ready: Promise<void>;
  open: boolean;
}

export function openConnection(address: string, options: ConnectionOptions): Connection {
  const { clock, connectTimeoutMs, keepaliveMs = Number.POSITIVE_INFINITY, windowBytes } = options;
  const session = connect(`http://${authorityOf(address)}`, {
    settings: { initialWindowSize: windowBytes, enablePush: false },
    maxSessionMemory: Number.MAX_SAFE_INTEGER, // messages have their own limit
    ...(address.startsWith('unix:') ? { createConnection: () => connectSocket(address.slice('unix:'.length)) } : {}),
  });
  let cause: unknown;
  session.on('error', (error) => {
    cause = error; // 'close' follows
  });
  session.once('connect', () => {
    if (!session.destroyed) session.setLocalWindowSize(windowBytes); // it may have been given up in the same turn
  });
  const ready = new Promise<void>((resolve, reject) => {
    // A peer that has never spoken is given no more time than one that falls silent later.
    const patienceMs = Math.min(connectTimeoutMs, keepaliveMs * 2);
    const cancelTimer = clock.schedule(patienceMs, () => session.destroy(new Error(`no word within ${patienceMs} ms`)));
    session.once('close', () => {
      cancelTimer();
      reject(connectFailed(address, cause));
    });
    session.once('remoteSettings', () => {
      cancelTimer();
      connection.open = true;
      if (Number.isFinite(keepaliveMs)) keepAlive(session, keepaliveMs, clock);
      resolve();
    });
  });
  const connection: Connection = { session, ready, open: false };
  return connection;
}

/** Pings after each pause; a peer that leaves one unanswered for as long is gone. */
function keepAlive(session: ClientHttp2Session, keepaliveMs: number, clock: Clock): void {
  let cancelTimer = () => {};
  const pause = () => {
    cancelTimer = clock.schedule(keepaliveMs, ping);
  };
  const ping = () => {
    if (session.destroyed) return; // 'close' is on its way
    cancelTimer = clock.schedule(keepaliveMs, () => session.destroy(new Error(`no answer to a ping within ${keepaliveMs} ms`)));
    session.ping((error) => {
      cancelTimer();
      if (!error) pause();
    });
  };
  session.once('close', () => cancelTimer());
  pause();
}

/** What HTTP/2 calls the peer. */
export function authorityOf(address: string): string {
  return address.startsWith('unix:') ? 'localhost' : address;
}

/** Nothing of the call has reached a handler. */
export function connectFailed(address: string, cause: unknown): StatusError {
  const text = cause instanceof Error ? `: ${cause.message}` : '';
  return new StatusError({ code: Code.UNAVAILABLE, reason: Reason.CONNECT_FAILED, message: `no connection to ${address}${text}`, cause });
}
