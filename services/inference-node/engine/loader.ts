/**
 * Sees to it that the model of a request is in the engine's memory, inside the request's lease and
 * before its execution time begins to count.
 *
 *   how it ended          caller                                 engine, then slot
 *   loaded                its picture is drawn                   kept: drawing goes on in the same lease
 *   caller gone           its own status, at once                the load is finished, since an engine cannot stop one and
 *                                                                the next request may want it; free after that
 *   not loadable          UNAVAILABLE/MODEL_UNUSABLE             free at once; the model is not offered any more
 *   took too long, or     the same                               killed, then free
 *   drew a wrong canary
 *   process died          the same: it is not the request's      restarted
 *                         fault
 */
import type { Clock } from '#core';
import type { Lease } from '../domain/slot.js';
import type { Catalogue, CatalogueModel } from './catalogue.js';
import type { Supervisor } from './supervisor.js';

export interface LoaderOptions {
  readonly clock: Clock;
  readonly catalogue: Catalogue;
  readonly supervisor: Supervisor;
}

/** How often the predicted end is told anew. */
const NEWS_MS = 250;
/** A load that takes longer than predicted is assumed to take this part of its time so far on top, lest a request is staged behind it. */
const OVERRUN_RATIO = 0.25;

export class Loader {
  constructor(private readonly options: LoaderOptions) {}

  /** Resolves when it is loaded; `runMs` is the predicted time of what follows. Releases the lease when it rejects. */
  async load(model: CatalogueModel, lease: Lease, request: { readonly signal: AbortSignal; readonly runMs: number }): Promise<void> {
    const { catalogue, supervisor } = this.options;
    const { engine } = supervisor;
    if (!engine) return; // for the executor to say
    if (catalogue.latest(model)?.loaded) return catalogue.used(model);
    const stopTelling = this.#tellEnd(model, lease, request.runMs);
    const loading = supervisor.load(engine, model).finally(stopTelling);
    try {
      await unlessAborted(loading, request.signal);
    } catch (thrown) {
      void loading.catch(() => {}).then(() => lease.release());
      throw thrown;
    }
  }

  #tellEnd({ loadMs }: CatalogueModel, lease: Lease, runMs: number): () => void {
    const { clock } = this.options;
    const startedAt = clock.now();
    let cancel = () => {};
    const tell = () => {
      const tookMs = clock.now() - startedAt;
      lease.expectEnd(startedAt + Math.max(loadMs, (1 + OVERRUN_RATIO) * tookMs) + runMs);
      cancel = clock.schedule(NEWS_MS, tell);
    };
    tell();
    return () => cancel();
  }
}

/** Rejects with the signal's reason, though the work goes on. */
async function unlessAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  let onAbort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
  await Promise.race([work, aborted]).finally(() => signal.removeEventListener('abort', onAbort));
}
