/**
 * Does a NATS server answer there? A server speaks first (INFO), so one that only accepts
 * connections is stopped or no NATS at all. Asked before every dial because the vendor's dial, when
 * it times out against a server that accepts and stays silent, leaves its socket open for ever.
 */
import net from 'node:net';
import type { Clock } from '#core';

/** Resolves when the first bytes came; rejects with the reason, or after `timeoutMs`. */
export function knock(at: { host: string; port: number }, clock: Clock, timeoutMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(at.port, at.host);
    const finish = (settle: () => void) => {
      cancel();
      signal.removeEventListener('abort', onAbort);
      socket.destroy();
      settle();
    };
    const onAbort = () => finish(() => reject(signal.reason));
    const cancel = clock.schedule(timeoutMs, () => finish(() => reject(new Error(`no greeting within ${timeoutMs} ms`))));
    signal.addEventListener('abort', onAbort, { once: true });
    socket.once('data', () => finish(resolve));
    socket.once('end', () => finish(() => reject(new Error('closed without a greeting'))));
    socket.on('error', (error) => finish(() => reject(error))); // stays: a destroyed socket may still report
  });
}
