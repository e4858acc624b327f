import type { NatsConnection } from 'nats';
import type { Bus } from './bus.js';

/** Calls `follow`, which never rejects, with each connection there is; its signal aborts when that one ends. Returns what ends it all. */
export function whileConnected(
  bus: Pick<Bus, 'attach'>,
  follow: (connection: NatsConnection, signal: AbortSignal) => Promise<void>,
): () => void {
  return bus.attach((connection) => {
    const ended = new AbortController();
    void connection.closed().then(() => ended.abort());
    void follow(connection, ended.signal);
    return () => ended.abort();
  });
}
