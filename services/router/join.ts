/**
 * Who asks for what is being drawn already gets that picture: the same request id with the same request
 * (a caller that repeats itself), or equal parameters with an explicit seed. Each caller has an answer of
 * its own, and the work is cancelled when the last one has left.
 *
 * Never across tenants, and never a unary call with a streamed one. The work ends with the deadline of whoever
 * started it; those who wait longer then start or join it anew (`diedForItsFirst`).
 */
import type { generation } from '#contracts';
import { Reason, StatusError } from '#core';
import type { Ticket } from './dispatch/ticket.js';

/** One execution and those who wait for it. */
export interface Flight<Progress> {
  readonly ticket: Ticket;
  readonly progress: Progress;
  /** False for whoever started it. */
  readonly joined: boolean;
  /** Resolves or rejects with the execution; rejects with the signal's reason, and leaves, when that comes first. */
  wait(signal: AbortSignal): Promise<void>;
}

interface Running<Progress> {
  readonly ticket: Ticket;
  readonly keys: readonly string[];
  readonly progress: Progress;
  readonly done: Promise<void>;
  readonly stop: AbortController;
  waiterCount: number;
}

export class Flights<Progress> {
  readonly #byKey = new Map<string, Running<Progress>>();

  /** Executions that may be joined. */
  get size(): number {
    return new Set(this.#byKey.values()).size;
  }

  /** Joins what `ticket` asks for, or starts it with `run`, which is told through `signal` when nobody waits any more. */
  board(ticket: Ticket, begin: () => { progress: Progress; run: (signal: AbortSignal) => Promise<void> }): Flight<Progress> {
    const keys = keysOf(ticket);
    const known = keys.map((key) => this.#byKey.get(key)).find((running) => running && !running.stop.signal.aborted);
    const running = known ?? this.#start(ticket, keys, begin());
    running.waiterCount++;
    return {
      ticket: running.ticket,
      progress: running.progress,
      joined: known !== undefined,
      wait: (signal) => this.#wait(running, signal),
    };
  }

  #start(ticket: Ticket, keys: readonly string[], begun: { progress: Progress; run: (signal: AbortSignal) => Promise<void> }) {
    const stop = new AbortController();
    const done = begun.run(stop.signal).finally(() => this.#forget(running));
    done.catch(() => {}); // each waiter reads it; a flight everyone has left has none
    const running: Running<Progress> = { ticket, keys, progress: begun.progress, done, stop, waiterCount: 0 };
    for (const key of keys) if (!this.#byKey.has(key)) this.#byKey.set(key, running);
    return running;
  }

  #wait(running: Running<Progress>, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        if (--running.waiterCount === 0) {
          this.#forget(running); // whoever comes now starts anew
          running.stop.abort(signal.reason);
          // The first to leave last hears how the work ended, so that what it held is free by then.
          running.done.then(resolve, reject);
        } else reject(StatusError.from(signal.reason));
      };
      if (signal.aborted) return onAbort();
      signal.addEventListener('abort', onAbort, { once: true });
      const leave = () => signal.removeEventListener('abort', onAbort);
      running.done.then(
        () => {
          leave();
          resolve();
        },
        (error: unknown) => {
          leave();
          reject(error);
        },
      );
    });
  }

  #forget(running: Running<Progress>): void {
    for (const key of running.keys) if (this.#byKey.get(key) === running) this.#byKey.delete(key);
  }
}

/** What an execution ends with because its first caller waits no longer. */
const FIRST_CALLERS_REASONS: ReadonlySet<string> = new Set([Reason.DEADLINE, Reason.QUEUE_TIMEOUT, Reason.DEADLINE_UNREACHABLE]);

/** Whether a flight that `ticket` joined ended for the deadline of whoever started it, and `ticket` has time left. */
export function diedForItsFirst(flight: Flight<unknown>, ticket: Ticket, error: unknown): boolean {
  return flight.joined && flight.ticket.deadlineAt < ticket.deadlineAt && FIRST_CALLERS_REASONS.has(StatusError.from(error).reason);
}

function keysOf(ticket: Ticket): string[] {
  const { tenant, request, revision, asked } = ticket;
  const keys = asked.requestId === '' ? [] : [JSON.stringify([tenant, asked.requestId, revision, contentOf(request, asked.seed)])];
  const content = contentKey(ticket);
  return content === undefined ? keys : [...keys, content];
}

/** Equal for requests of a tenant that must get equal pictures; undefined when the seed is left to chance. */
export function contentKey({ tenant, request, revision, asked }: Ticket): string | undefined {
  return asked.seed === undefined ? undefined : JSON.stringify([tenant, revision, contentOf(request, asked.seed)]);
}

/** All that decides what is answered; a seed only when the caller chose it. */
function contentOf(request: generation.GenerateRequest, seed: bigint | undefined): unknown[] {
  const { model, prompt, negativePrompt, width, height, steps, guidanceScale, imageCount, loras, format } = request;
  const styles = loras.map(({ name, strength }) => [name, strength]);
  return [model, prompt, negativePrompt, width, height, steps, guidanceScale, imageCount, styles, format, seed?.toString()];
}
