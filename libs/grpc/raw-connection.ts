/**
 * The HTTP/2 connection under a raw leg: opened, proven to be alive by pings, ended by whatever ends it.
 */
import { type ClientHttp2Session, connect } from 'node:http2';
import { connect as connectSocket, type Socket } from 'node:net';
import { type Clock, Code, Reason, StatusError } from '#core';
import { type ClientTls, explainTlsFailure, hostOf, secured } from '#tls';

export interface ConnectionOptions {
  readonly clock: Clock;
  /** What a peer may send before it is read, for each call and for all of them. */
  readonly windowBytes: number;
  /** As in ChannelOptions. */
  readonly connectTimeoutMs: number;
  readonly keepaliveMs?: number | undefined;
  readonly tls?: ClientTls | undefined;
}

export interface Connection {
  readonly session: ClientHttp2Session;
  /** Resolves when the peer has spoken HTTP/2; rejects with CONNECT_FAILED. */
  readonly ready: Promise<void>;
  open: boolean;
}

/** Some turns of the event loop, with thousands of calls in each. */
const READING_MS = 50;

export function openConnection(address: string, options: ConnectionOptions): Connection {
  const { clock, connectTimeoutMs, keepaliveMs = Number.POSITIVE_INFINITY, tls, windowBytes } = options;
  const url = new URL(`${tls ? 'https' : 'http'}://${authorityOf(address)}`); // throws before anything is open
  const socket = dial(address, tls);
  const session = connect(url, {
    settings: { initialWindowSize: windowBytes, enablePush: false },
    maxSessionMemory: Number.MAX_SAFE_INTEGER, // messages have their own limit
    createConnection: () => socket,
  });
  let cause: unknown;
  session.on('error', (error) => {
    cause ??= error; // 'close' follows
  });
  session.once('connect', () => {
    if (!session.destroyed) session.setLocalWindowSize(windowBytes); // it may have been given up in the same turn
  });
  const ready = new Promise<void>((resolve, reject) => {
    // A peer that has never spoken is given no more time than one that falls silent later.
    const patienceMs = Math.min(connectTimeoutMs, keepaliveMs * 2);
    const cancelTimer = clock.schedule(patienceMs, () => {
      const late = new Error(`no word within ${patienceMs} ms`);
      cause = late; // the socket may complain of its end first
      session.destroy(late);
    });
    const onClose = () => {
      cancelTimer();
      reject(connectFailed(address, cause, explainTlsFailure(cause instanceof Error ? cause.message : '', tls !== undefined)));
    };
    session.once('close', onClose);
    socket.on('error', (error) => {
      cause ??= error;
      socket.destroy(); // a TLS alert alone does not end it,
      onClose(); // and a session that is ended in the middle of a write never says so (Node 20)
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

function dial(address: string, tls: ClientTls | undefined): Socket {
  if (address.startsWith('unix:')) return connectSocket(address.slice('unix:'.length));
  const host = hostOf(address);
  const socket = connectSocket({ host, port: Number(address.slice(address.lastIndexOf(':') + 1)), noDelay: true });
  return tls ? secured(socket, host, tls) : socket;
}

/** Pings after each pause; a peer that leaves one unanswered for as long is gone. */
function keepAlive(session: ClientHttp2Session, keepaliveMs: number, clock: Clock): void {
  let cancelTimer = () => {};
  const pause = () => {
    cancelTimer = clock.schedule(keepaliveMs, ping);
  };
  const ping = () => {
    if (session.destroyed) return; // 'close' is on its way
    cancelTimer = judgeAfter(clock, keepaliveMs, () => session.destroy(new Error(`no answer to a ping within ${keepaliveMs} ms`)));
    session.ping((error) => {
      cancelTimer();
      if (!error) pause();
    });
  };
  session.once('close', () => cancelTimer());
  pause();
}

/** A process that was held up itself runs its timers before it reads what came meanwhile: time to read that first. */
function judgeAfter(clock: Clock, ms: number, verdict: () => void): () => void {
  let cancel = clock.schedule(ms, () => {
    cancel = clock.schedule(READING_MS, verdict);
  });
  return () => cancel();
}

/** What HTTP/2 calls the peer. */
export function authorityOf(address: string): string {
  return address.startsWith('unix:') ? 'localhost' : address;
}

/** Nothing of the call has reached a handler. `why`: in plain words, where they are known. */
export function connectFailed(address: string, cause: unknown, why = cause instanceof Error ? cause.message : undefined): StatusError {
  const text = why === undefined ? '' : `: ${why}`;
  return new StatusError({ code: Code.UNAVAILABLE, reason: Reason.CONNECT_FAILED, message: `no connection to ${address}${text}`, cause });
}
