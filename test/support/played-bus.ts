/** Our own port to NATS with nothing behind it: remembers what was published and lets a test play NATS. */
import type { Bus, BusMessage } from '#bus';

export class PlayedBus implements Bus {
  connected = true;
  readonly published: { subject: string; text: string }[] = [];
  readonly handlers = new Map<string, (message: BusMessage) => void>();
  readonly listeners = new Set<(connected: boolean) => void>();

  publish(subject: string, payload: string | Uint8Array): boolean {
    if (this.connected) this.published.push({ subject, text: String(payload) });
    return this.connected;
  }
  subscribe(subject: string, handler: (message: BusMessage) => void): () => void {
    this.handlers.set(subject, handler);
    return () => void this.handlers.delete(subject);
  }
  onLink(listener: (connected: boolean) => void): () => void {
    this.listeners.add(listener);
    if (this.connected) listener(true);
    return () => void this.listeners.delete(listener);
  }
  link(connected: boolean): void {
    this.connected = connected;
    for (const listener of this.listeners) listener(connected);
  }
  /** A message comes in; `pattern` is what was subscribed to, where that is another. */
  deliver(subject: string, payload: unknown, pattern = subject): void {
    const text = typeof payload === 'string' ? payload : JSON.stringify(payload);
    this.handlers.get(pattern)?.({ subject, data: Buffer.from(text), respond: () => false });
  }
  request = async () => new Uint8Array();
  attach = () => () => {};
  flush = async () => {};
  close = async () => {};
}
