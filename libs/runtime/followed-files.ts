/**
 * Files as they change: tokens, certificates. Those that belong together (a certificate and its key) are
 * read and judged as one. Their folders are watched, because files are replaced by renaming; since some
 * file systems tell nothing, the files are also looked at every two seconds. What cannot be used, and is
 * not merely being written, is reported once; the last good reading holds.
 */
import { constants, type FSWatcher, watch } from 'node:fs';
import { stat } from 'node:fs/promises';
import path from 'node:path';
import type { Clock } from '#core';
import { ConfigError } from './env.js';
import { openRegularFile, otherKind } from './regular-file.js';

export interface FollowedFilesOptions {
  readonly paths: readonly string[];
  readonly clock: Clock;
  /** Takes what the files hold, in the order of the paths, and returns its faults. With none it holds from now on. */
  readonly take: (contents: readonly Buffer[]) => readonly string[];
  readonly onRejected: (faults: readonly string[]) => void;
  /** Larger files are refused. */
  readonly maxBytes: number;
  /** Default 2 s. */
  readonly pollMs?: number;
}

const POLL_MS = 2000;
/** Files written in place, or one after the other, do not fit for a moment. */
const SETTLE_MS = 200;

export class FollowedFiles {
  readonly #options: FollowedFilesOptions;
  readonly #watchers: FSWatcher[] = [];
  #cancelPoll = () => {};
  #cancelReport = () => {};
  #stopped = false;
  /** What the files looked like when they were last read. */
  #seen = '';
  #reading: Promise<void> | undefined;
  #again = false;

  constructor(options: FollowedFilesOptions) {
    this.#options = options;
  }

  /** Reads the files and follows them. Rejects with a ConfigError when the first reading finds none to use. */
  async start(): Promise<void> {
    const faults = await this.#read();
    if (faults.length > 0) throw new ConfigError(faults);
    for (const folder of new Set(this.#options.paths.map((file) => path.dirname(file)))) this.#watch(folder);
    this.#poll();
  }

  close(): void {
    this.#stopped = true;
    for (const watcher of this.#watchers) watcher.close();
    this.#cancelPoll();
    this.#cancelReport();
  }

  #watch(folder: string): void {
    const names = this.#options.paths.filter((file) => path.dirname(file) === folder).map((file) => path.basename(file));
    try {
      const watcher = watch(folder, { persistent: false }, (_, changed) => {
        if (changed === null || names.includes(changed)) this.#look();
      });
      watcher.on('error', () => watcher.close()); // the poll goes on
      this.#watchers.push(watcher);
    } catch {
      // no watches left on this machine: the poll alone finds changes, a little later
    }
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
    const { clock, onRejected } = this.#options;
    const before = this.#seen;
    const faults = await this.#read();
    if (this.#seen === before || this.#stopped) return;
    this.#cancelReport();
    if (faults.length > 0) this.#cancelReport = clock.schedule(SETTLE_MS, () => onRejected(faults));
  }

  /** Faults of files not seen before; none when they are good, or as they were. */
  async #read(): Promise<readonly string[]> {
    const { paths, take, maxBytes } = this.#options;
    const looks = await Promise.all(paths.map((file) => lookAt(file, maxBytes)));
    const look = looks.map(({ text }) => text).join('\n');
    if (look === this.#seen) return [];
    this.#seen = look;
    const faults = looks.flatMap(({ fault }) => fault ?? []);
    if (faults.length > 0) return faults;
    const contents = await Promise.all(paths.map((file) => readOrFault(file, maxBytes)));
    const unread = contents.filter((content) => typeof content === 'string');
    if (unread.length > 0) return this.#refused(unread);
    if (this.#stopped) return [];
    try {
      return this.#refused(take(contents.filter((content) => typeof content !== 'string')));
    } catch (error) {
      return [`expected files that can be used (${paths.join(', ')}), got ${codeOf(error)}`];
    }
  }

  /** May pass without a change of the files, as a certificate that is not good yet: they are read again at the next look. */
  #refused(faults: readonly string[]): readonly string[] {
    if (faults.length > 0) this.#seen += ' refused';
    return faults;
  }
}

interface Look {
  readonly text: string;
  /** Why it is not to be read. */
  readonly fault?: string;
}

async function lookAt(file: string, maxBytes: number): Promise<Look> {
  try {
    const stats = await stat(file);
    const kind = otherKind(stats);
    // Pipes and devices have no size, and change with every use.
    if (kind !== undefined) return { text: kind, fault: `${file}: expected a regular file, got ${kind}` };
    const { ino, size, mtimeMs, ctimeMs } = stats;
    const text = `${ino} ${size} ${mtimeMs} ${ctimeMs}`;
    return size > maxBytes ? { text, fault: tooLarge(file, maxBytes, size) } : { text };
  } catch (error) {
    return { text: codeOf(error), fault: unreadable(file, error) };
  }
}

/** Reads no more than is allowed, whatever has come there since it was looked at. */
async function readOrFault(file: string, maxBytes: number): Promise<Buffer | string> {
  const chunks: Buffer[] = [];
  try {
    const handle = await openRegularFile(file, constants.O_RDONLY);
    for await (const chunk of handle.createReadStream({ end: maxBytes })) chunks.push(chunk); // one byte more tells
  } catch (error) {
    return unreadable(file, error);
  }
  const content = Buffer.concat(chunks);
  return content.length > maxBytes ? tooLarge(file, maxBytes, 'more') : content;
}

function tooLarge(file: string, maxBytes: number, got: number | string): string {
  return `${file}: expected at most ${maxBytes} bytes, got ${got}`;
}

function unreadable(file: string, error: unknown): string {
  return `${file}: expected a readable file, got ${codeOf(error)}`;
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}
