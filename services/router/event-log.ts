/**
 * The events of one streamed execution, read by as many callers as have joined it, each at its own pace
 * and from the beginning. Holds a whole answer until its last reader is done; a reader who does not read
 * is cut off by the server (IDLE_READER).
 */
import type { generation } from '#contracts';
import type { Pieces, Writer } from '#grpc';
import { Bell } from './bell.js';

type Event = generation.GenerateEvent | Pieces;

export class EventLog implements Writer<generation.GenerateEvent> {
  readonly #events: Event[] = [];
  #ended = false;
  readonly #news = new Bell();

  /** Never waits: the node is done when it is done. */
  write(event: Event): Promise<void> {
    this.#events.push(event);
    this.#news.ring();
    return Promise.resolve();
  }

  /** Nothing more comes. */
  end(): void {
    this.#ended = true;
    this.#news.ring();
  }

  /** All events, past and to come; ends with the log or when `signal` aborts. */
  async *read(signal: AbortSignal): AsyncGenerator<Event, void> {
    for (let next = 0; !signal.aborted; next++) {
      while (next >= this.#events.length) {
        if (this.#ended || signal.aborted) return;
        await this.#news.next(signal);
      }
      yield this.#events[next] as Event;
    }
  }
}
