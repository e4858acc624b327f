/**
 * The token file as it changes. The folder is watched, because files are replaced by renaming; since
 * some file systems tell nothing, the file is also looked at every two seconds. A file that cannot be
 * used, and is not merely being written, is reported once, and the last good one holds.
 */
import { type FSWatcher, watch } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Clock, Emit } from '#core';
import type { AccessEvent } from './events.js';
import type { Token } from './token.js';
import { parseTokenFile } from './token-file.js';

export interface TokenSourceOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly emit: Emit<AccessEvent>;
  readonly onTokens: (tokens: readonly Token[]) => void;
  /** Default 2 s. */
  readonly pollMs?: number;
}

const POLL_MS = 2000;
/** A file written in place is empty or half there for a moment. */
const SETTLE_MS = 200;
const MAX_FILE_BYTES = 16 * 1024 * 1024;

export class TokenSource {
  readonly #options: TokenSourceOptions;
  #watcher: FSWatcher | undefined;
  #cancelPoll = () => {};
  #cancelReport = () => {};
  #stopped = false;
  /** What the file looked like when it was last read. */
  #seen = '';
  #reading: Promise<void> | undefined;
  #again = false;

  constructor(options: TokenSourceOptions) {
    this.#options = options;
  }

  /** Reads the file and follows it. Rejects when the first reading finds no usable file. */
  async start(): Promise<void> {
    const faults = await this.#read();
    if (faults.length > 0) throw new Error(`${this.#options.path}: ${faults.join('; ')}`);
    try {
      const name = path.basename(this.#options.path);
      const watcher = watch(path.dirname(this.#options.path), { persistent: false }, (_, changed) => {
        if (changed === null || changed === name) this.#look();
      });
      watcher.on('error', () => watcher.close()); // the poll goes on
      this.#watcher = watcher;
    } catch {
      // no watches left on this machine: the poll alone finds changes, a little later
    }
    this.#poll();
  }

  close(): void {
    this.#stopped = true;
    this.#watcher?.close();
    this.#cancelPoll();
    this.#cancelReport();
  }

  #poll(): void {
    this.#cancelPoll = this.#options.clock.schedule(this.#options.pollMs ?? POLL_MS, () => {
      this.#look();
      this.#poll();
    });
  }

  /** One reading at a time; a change during one asks for another. */
  #look(): void {
    if (this.#stopped) return;
    if (this.#reading) {
      this.#again = true;
      return;
    }
    this.#reading = this.#readOnce().finally(() => {
      this.#reading = undefined;
      if (!this.#again) return;
      this.#again = false;
      this.#look();
    });
  }

  async #readOnce(): Promise<void> {
    const { clock, emit, path: file } = this.#options;
    const before = this.#seen;
    const faults = await this.#read();
    if (this.#seen === before || this.#stopped) return;
    this.#cancelReport();
    if (faults.length > 0) this.#cancelReport = clock.schedule(SETTLE_MS, () => emit({ type: 'tokensRejected', path: file, faults }));
  }

  /** Faults of a file not seen before; none when it is good, or as it was. */
  async #read(): Promise<readonly string[]> {
    const { path: file, onTokens, emit } = this.#options;
    try {
      const { ino, size, mtimeMs, ctimeMs } = await stat(file);
      const look = `${ino} ${size} ${mtimeMs} ${ctimeMs}`;
      if (look === this.#seen) return [];
      this.#seen = look;
      if (size > MAX_FILE_BYTES) return [`expected at most ${MAX_FILE_BYTES} bytes, got ${size}`];
      const parsed = parseTokenFile(await readFile(file, 'utf8'));
      if (!parsed.ok) return parsed.faults;
      if (this.#stopped) return [];
      onTokens(parsed.tokens);
      emit({ type: 'tokensLoaded', path: file, tokenCount: parsed.tokens.length });
      return [];
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
      if (this.#seen === code) return [];
      this.#seen = code;
      return [`expected a readable file, got ${code}`];
    }
  }
}
