/**
 * Callers, many at once: each asks for a picture and, when answered, for the next, until a count is
 * reached or it is told to stop. Every call ends up as exactly one outcome.
 */
import { createHash } from 'node:crypto';
import { onTestFinished } from 'vitest';
import type { MeshClient, MeshError, PictureRequest } from '#client';
import { StatusError } from '#core';
import { systemClock } from '#runtime';

export interface Drawn {
  readonly ok: true;
  readonly request: PictureRequest & { readonly seed: number };
  readonly data: Uint8Array;
  readonly nodeId: string;
  readonly attempts: number;
  /** In the order of arrival of answers, clock milliseconds. */
  readonly endedAt: number;
  readonly tookMs: number;
}

export interface Failed {
  readonly ok: false;
  readonly request: PictureRequest & { readonly seed: number };
  readonly error: MeshError;
  readonly endedAt: number;
  readonly tookMs: number;
}

export type Outcome = Drawn | Failed;

export interface LoadOptions {
  /** Calls at once. */
  readonly callers: number;
  /** Calls in all; default: until stop(). */
  readonly count?: number;
  /** Seeds are firstSeed, firstSeed + 1, … Default 0. */
  readonly firstSeed?: number;
  /** On top of a 64×64 picture of the seed's own prompt. */
  readonly request?: Partial<PictureRequest>;
  /** Default 60 s. */
  readonly timeoutMs?: number;
}

const FAILURE_PAUSE_MS = 10;

export class Load {
  readonly outcomes: Outcome[] = [];
  /** Calls begun and not ended. */
  inFlight = 0;
  readonly #callers: Promise<unknown>;
  readonly #waiting: { readonly count: number; readonly resolve: () => void }[] = [];
  #next: number;
  #left: number;

  constructor(
    private readonly client: MeshClient,
    private readonly options: LoadOptions,
  ) {
    this.#next = options.firstSeed ?? 0;
    this.#left = options.count ?? Number.POSITIVE_INFINITY;
    // A test that fails half-way must not leave callers behind that go on for ever.
    onTestFinished(() => void this.stop());
    this.#callers = Promise.all(Array.from({ length: options.callers }, () => this.#call()));
  }

  /** Resolves when all calls have ended. */
  async finished(): Promise<readonly Outcome[]> {
    await this.#callers;
    return this.outcomes;
  }

  /** No further calls; resolves when those in flight have ended. */
  stop(): Promise<readonly Outcome[]> {
    this.#left = 0;
    return this.finished();
  }

  /** Resolves when so many more calls have ended. */
  more(count: number): Promise<void> {
    return new Promise((resolve) => this.#waiting.push({ count: this.outcomes.length + count, resolve }));
  }

  async #call(): Promise<void> {
    while (this.#left > 0) {
      this.#left--;
      this.inFlight++;
      const outcome = await draw(this.client, this.#next++, this.options);
      this.inFlight--;
      this.outcomes.push(outcome);
      // Calls on a closed client fail at once, for ever: nothing else would get a turn.
      if (!outcome.ok) await systemClock.sleep(FAILURE_PAUSE_MS);
      for (const waiter of this.#waiting) if (this.outcomes.length >= waiter.count) waiter.resolve();
    }
  }
}

async function draw(client: MeshClient, seed: number, options: LoadOptions): Promise<Outcome> {
  const startedAt = systemClock.now();
  const request = { prompt: `picture ${seed}`, width: 64, height: 64, ...options.request, seed };
  // Every other caller asks for a stream, so that both ways through the mesh are under load.
  const onProgress = seed % 2 === 1 ? () => {} : undefined;
  const times = () => ({ endedAt: systemClock.now(), tookMs: systemClock.now() - startedAt });
  try {
    const { images, nodeId, attempts } = await client.generate(request, { onProgress, timeoutMs: options.timeoutMs ?? 60_000 });
    return { ok: true, request, data: images[0]?.data ?? new Uint8Array(), nodeId, attempts, ...times() };
  } catch (thrown) {
    return { ok: false, request, error: StatusError.from(thrown), ...times() };
  }
}

/** How often each failure came; {} when there was none. */
export function failures(outcomes: readonly Outcome[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const outcome of outcomes) {
    if (outcome.ok) continue;
    const text = `${outcome.error.reason}: ${outcome.error.message}`;
    counts[text] = (counts[text] ?? 0) + 1;
  }
  return counts;
}

/** SHA-256 of each seed's file. */
export function digests(outcomes: readonly Outcome[]): Record<number, string> {
  const drawn = outcomes.filter((outcome) => outcome.ok);
  return Object.fromEntries(drawn.map(({ request, data }) => [request.seed, createHash('sha256').update(data).digest('hex')]));
}

/** How many of the drawn pictures each node drew. */
export function byNode(outcomes: readonly Outcome[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const outcome of outcomes) if (outcome.ok) counts[outcome.nodeId] = (counts[outcome.nodeId] ?? 0) + 1;
  return counts;
}
