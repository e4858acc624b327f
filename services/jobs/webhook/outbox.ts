/**
 * Which webhook is sent next? What is due waits here in lines, one for each receiver of a tenant. A line has a few
 * under way at a time, so that a receiver which hangs holds no more than those; when places are scarce, tenants take
 * turns, and within a tenant its receivers.
 */
import { setMaxListeners } from 'node:events';
import { receiverOf } from './receiver-url.js';

export interface Due {
  /** Equal for the same message: it is taken once. */
  readonly eventId: string;
  readonly tenant: string;
  readonly url: string;
}

export interface OutboxOptions<D extends Due> {
  /** Tells the receiver and writes down what came of it. What it rejects with is given to `onFailed`, except after `close`. */
  readonly send: (due: D, signal: AbortSignal) => Promise<void>;
  readonly onFailed: (due: D, error: unknown) => void;
  /** Under way, in all. */
  readonly maxCount: number;
  /** Under way to one receiver. */
  readonly maxPerReceiverCount: number;
}

interface Line<D> {
  readonly receiver: string;
  readonly tenant: string;
  readonly waiting: D[];
  sendingCount: number;
}

export class Outbox<D extends Due> {
  readonly #options: OutboxOptions<D>;
  readonly #taken = new Set<string>();
  readonly #lines = new Map<string, Line<D>>();
  /** By tenant, those with one that may be sent now. Whose turn is next stands first. */
  readonly #ready = new Map<string, Set<Line<D>>>();
  readonly #stopped = new AbortController();
  readonly #sending = new Set<Promise<void>>();
  #open = true;

  constructor(options: OutboxOptions<D>) {
    this.#options = options;
    setMaxListeners(0, this.#stopped.signal); // each that is under way listens
  }

  get sendingCount(): number {
    return this.#sending.size;
  }

  get waitingCount(): number {
    return this.#taken.size - this.#sending.size;
  }

  /** Sends it when it has its turn; one that is here already is not taken twice. */
  take(due: D): void {
    if (!this.#open || this.#taken.has(due.eventId)) return;
    this.#taken.add(due.eventId);
    const receiver = `${due.tenant} ${receiverOf(due.url)}`;
    const line = this.#lines.get(receiver) ?? { receiver, tenant: due.tenant, waiting: [], sendingCount: 0 };
    this.#lines.set(receiver, line);
    line.waiting.push(due);
    this.#queue(line);
    this.#sendNext();
  }

  /** Takes and begins nothing more; resolves when what is under way has ended. What waited stays due. */
  async drain(): Promise<void> {
    this.#open = false;
    await Promise.all(this.#sending);
  }

  close(): void {
    this.#open = false;
    this.#stopped.abort();
  }

  #sendNext(): void {
    while (this.#open && this.#sending.size < this.#options.maxCount) {
      const line = this.#nextLine();
      const due = line?.waiting.shift();
      if (!line || !due) return;
      line.sendingCount++;
      this.#queue(line);
      const sending = this.#send(line, due).finally(() => {
        this.#sending.delete(sending);
        this.#sendNext();
      });
      this.#sending.add(sending);
    }
  }

  async #send(line: Line<D>, due: D): Promise<void> {
    const { send, onFailed } = this.#options;
    await send(due, this.#stopped.signal).catch((error: unknown) => {
      if (!this.#stopped.signal.aborted) onFailed(due, error);
    });
    this.#taken.delete(due.eventId);
    line.sendingCount--;
    this.#queue(line);
    if (line.sendingCount === 0 && line.waiting.length === 0) this.#lines.delete(line.receiver);
  }

  /** Takes the line whose turn it is out of the order. */
  #nextLine(): Line<D> | undefined {
    for (const [tenant, lines] of this.#ready) {
      for (const line of lines) {
        lines.delete(line);
        this.#ready.delete(tenant);
        if (lines.size > 0) this.#ready.set(tenant, lines);
        return line;
      }
    }
    return undefined;
  }

  /** Gives a line that has something to send its place in the order, behind all others. */
  #queue(line: Line<D>): void {
    if (line.waiting.length === 0 || line.sendingCount >= this.#options.maxPerReceiverCount) return;
    const lines = this.#ready.get(line.tenant) ?? new Set();
    lines.add(line); // keeps its place when it has one
    this.#ready.set(line.tenant, lines);
  }
}
