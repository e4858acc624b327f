/** What this router did of late, a second: answers, errors, GPU time. Fed with events, read by MeshAdmin. */
import { type admin, generation } from '#contracts';
import { type Clock, Code } from '#core';
import type { CallEnded } from '#grpc';
import { RateWindow } from './rate-window.js';

const { generate, generateStream } = generation.ImageGenerationServiceService;
const PICTURE_METHODS: ReadonlySet<string> = new Set([generate.path, generateStream.path]);

export class Rates {
  readonly #clock: Clock;
  readonly #answers: RateWindow;
  readonly #errors: RateWindow;
  readonly #gpuSeconds: RateWindow;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#answers = new RateWindow(clock.now());
    this.#errors = new RateWindow(clock.now());
    this.#gpuSeconds = new RateWindow(clock.now());
  }

  /** A caller who went away got neither an answer nor an error. */
  callEnded({ method, code }: Pick<CallEnded, 'method' | 'code'>): void {
    if (!PICTURE_METHODS.has(method) || code === Code.CANCELLED) return;
    (code === Code.OK ? this.#answers : this.#errors).add(1, this.#clock.now());
  }

  executed(event: { readonly actualMs: number }): void {
    this.#gpuSeconds.add(event.actualMs / 1000, this.#clock.now());
  }

  read(): admin.Rates {
    const now = this.#clock.now();
    return {
      answersPerSecond: this.#answers.perSecond(now),
      errorsPerSecond: this.#errors.perSecond(now),
      gpuSecondsPerSecond: this.#gpuSeconds.perSecond(now),
    };
  }
}
