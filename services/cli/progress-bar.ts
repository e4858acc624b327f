/** One line that says how a picture comes along: position in the queue, then steps, then bytes. */
import type { Progress } from '#client';
import { printable } from '#core';
import { duration } from './node-words.js';
import { CLEAR_LINE, type Terminal } from './terminal.js';

const BAR_COLUMN_COUNT = 24;

export class ProgressBar {
  readonly #terminal: Terminal;
  #nodeId = '';
  #attempt = 1;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  show(progress: Progress): void {
    if (!this.#terminal.interactive) return;
    const text = this.#textOf(progress);
    if (text !== undefined) this.#terminal.err(`${CLEAR_LINE}${printable(text).slice(0, this.#terminal.columnCount - 1)}`);
  }

  /** Leaves an empty line for what comes next. */
  clear(): void {
    if (this.#terminal.interactive) this.#terminal.err(CLEAR_LINE);
  }

  #textOf(progress: Progress): string | undefined {
    switch (progress.kind) {
      case 'accepted':
        return `accepted, about ${duration(progress.etaMs)}`;
      case 'queued':
        return `in the queue at position ${progress.position}, about ${duration(progress.etaMs)}`;
      case 'started':
        this.#nodeId = progress.nodeId;
        this.#attempt = progress.attempt;
        return this.#bar(0, progress.loadMs > 0 ? `loading the model, about ${duration(progress.loadMs)},` : 'starting');
      case 'step': {
        const picture = progress.imageIndex > 0 ? `, picture ${progress.imageIndex + 1}` : '';
        return this.#bar(progress.step / progress.total, `step ${progress.step} of ${progress.total}${picture}`);
      }
      case 'receiving':
        return this.#bar(1, progress.receivedBytes < progress.totalBytes ? 'receiving' : 'done');
      case 'retrying':
        return `${progress.reason}, trying again in ${duration(progress.delayMs)}`;
      default:
        return progress satisfies never;
    }
  }

  #bar(ratio: number, text: string): string {
    const attempt = this.#attempt > 1 ? ` (attempt ${this.#attempt})` : '';
    return `${bar(ratio)} ${text} on ${this.#nodeId}${attempt}`;
  }
}

export function bar(ratio: number): string {
  const full = Math.round(Math.min(1, ratio) * BAR_COLUMN_COUNT);
  return `${'█'.repeat(full)}${'░'.repeat(BAR_COLUMN_COUNT - full)}`;
}
