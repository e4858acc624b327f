/**
 * One JSON line for every request that was let in and every order of an operator, for bills and questions. Lines are appended (O_APPEND),
 * many in one write, while requests go on; a disk that is full or slow costs lines, which are counted, and
 * never a request. The file is opened for each write, so it may be renamed away at any time.
 */
import { appendFile } from 'node:fs/promises';
import { type Clock, codeName, type Emit, Reason } from '#core';
import { ConfigError } from '#runtime';
import type { RouterEvent } from './events.js';

type Audited = Extract<RouterEvent, { type: 'requestEnded' | 'leverPulled' }>;

export interface AuditLogOptions {
  readonly path: string;
  readonly clock: Clock;
  readonly emit: Emit<RouterEvent>;
}

const MAX_WAITING_LINES = 10_000;
/** After a failed write the next one waits this long. */
const PAUSE_MS = 1000;

export class AuditLog {
  readonly #options: AuditLogOptions;
  #lines: string[] = [];
  #lostCount = 0;
  #torn = false;
  #writing: Promise<void> | undefined;
  readonly #closing = new AbortController();

  constructor(options: AuditLogOptions) {
    this.#options = options;
  }

  /** Rejects with a ConfigError when the file cannot be written. */
  async start(): Promise<void> {
    const { path } = this.#options;
    await this.#append('').catch((error: unknown) => {
      const why = error instanceof Error && 'code' in error ? error.code : error;
      throw new ConfigError([
        `DMESH_ROUTER_AUDIT_LOG: expected a file that can be written, got ${String(why)} for ${JSON.stringify(path)}`,
      ]);
    });
  }

  note(ended: Audited): void {
    // Turned away before anything was looked at, perhaps by the thousand: the metrics count them.
    if (ended.reason === Reason.RATE_LIMITED) return;
    if (this.#lines.length >= MAX_WAITING_LINES) this.#lostCount++;
    else this.#lines.push(lineOf(ended));
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
  }

  /** Resolves when all lines are written, or lost. */
  async close(): Promise<void> {
    this.#closing.abort();
    while (this.#writing) await this.#writing;
  }

  async #write(): Promise<void> {
    while (this.#lines.length > 0) {
      const lines = this.#lines;
      this.#lines = [];
      try {
        await this.#append(`${this.#torn ? '\n' : ''}${lines.join('')}`);
        this.#torn = false;
      } catch (error) {
        this.#torn = true; // a part may have been written: the next line must not be its end
        const { emit, clock } = this.#options;
        emit({ type: 'auditLost', lineCount: lines.length + this.#lostCount, error });
        this.#lostCount = 0;
        await clock.sleep(PAUSE_MS, this.#closing.signal).catch(() => {}); // closing wants the rest written now
      }
    }
  }

  #append(text: string): Promise<void> {
    return appendFile(this.#options.path, text, { mode: 0o600 });
  }
}

function lineOf(ended: Audited): string {
  const outcome = { code: codeName(ended.code), reason: ended.reason, duration_ms: Math.round(ended.durationMs) };
  return `${JSON.stringify({ time: new Date().toISOString(), ...fieldsOf(ended), ...outcome })}\n`;
}

function fieldsOf(ended: Audited): Readonly<Record<string, string | number>> {
  const { tenant, tokenId: token } = ended;
  if (ended.type === 'leverPulled') return { lever: ended.lever, tenant, token, peer: ended.peer, ...ended.subject };
  const { requestId, model, nodeId: node, gpuMs, imageCount: images } = ended;
  return { request_id: requestId, tenant, token, model, node, gpu_ms: Math.round(gpuMs), images };
}
