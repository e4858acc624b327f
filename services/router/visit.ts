/**
 * One caller's request from the door to its end: what its token lets it ask for, what its tenant is
 * charged, and the record of what became of it.
 *
 * GPU time is charged by prediction, so that a backlog counts, and corrected by what the node says. Work
 * that was joined or found in the cache, or never began, costs nothing. An execution may outlive the call
 * that began it (others have joined it); the record waits for it, so that every GPU second is in one.
 */
import { type Accounts, defaultPriority, permit, rateLimited, type Token } from '#access';
import { outcomeOf } from '#breaker';
import { type Clock, Code, type Emit, StatusError } from '#core';
import type { Call } from '#grpc';
import type { Priority } from '#scheduling';
import type { RouterEvent } from './events.js';
import type { Run } from './execute.js';

export interface VisitOptions {
  readonly call: Call<unknown>;
  readonly clock: Clock;
  readonly emit: Emit<RouterEvent>;
  readonly accounts: Accounts;
  readonly tenant: string;
  /** The caller is another, who asks in the tenant's name. */
  readonly actedFor: boolean;
  /** Undefined in an open mesh. */
  readonly token: Token | undefined;
}

export class Visit {
  readonly #options: VisitOptions;
  readonly #startedAt: number;
  #imageCount = 0;
  #chargedMs = 0;
  /** As nodes said. */
  #gpuMs = 0;
  #begun = false;
  #running = false;
  #ended: { readonly error: StatusError | undefined; readonly durationMs: number } | undefined;

  constructor(options: VisitOptions) {
    this.#options = options;
    this.#startedAt = options.clock.now();
  }

  get tenant(): string {
    return this.#options.tenant;
  }

  get actedFor(): boolean {
    return this.#options.actedFor;
  }

  /** The class of a request that names none: the usual one, or less where the token allows no more. */
  get defaultPriority(): Priority {
    return defaultPriority(this.#options.token, 'normal');
  }

  /** Throws FORBIDDEN. `model` is the name the caller uses. */
  permit(model: string, priority: Priority): void {
    permit(this.#options.token, { model, priority });
  }

  /** Takes the predicted GPU time from the tenant's account. Throws RATE_LIMITED. */
  charge(work: { readonly costMs: number; readonly imageCount: number }): void {
    const { accounts, clock, tenant } = this.#options;
    const charge = accounts.work(tenant, work.costMs, clock.now());
    if (charge.kind === 'limited') throw rateLimited(`tenant ${tenant}`, charge);
    this.#chargedMs = work.costMs;
    this.#imageCount = work.imageCount;
  }

  /** The execution that this request began. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    this.#running = true;
    try {
      return await work();
    } finally {
      this.#running = false;
      if (this.#ended) this.#settle();
    }
  }

  /** One try on a node, measured. */
  measured<T>(run: Run<T>): Run<T> {
    return async (attempt) => {
      try {
        const outcome = await run(attempt);
        this.#gpuMs += outcome.executingMs ?? this.#chargedMs;
        return outcome;
      } catch (thrown) {
        // What a failed attempt used is not known; where it began, the prediction stands.
        if (outcomeOf(StatusError.from(thrown)).retry !== 'free') this.#begun = true;
        throw thrown;
      }
    };
  }

  /** The call has ended; without an error its pictures were delivered. */
  end(error?: StatusError): void {
    this.#ended = { error, durationMs: this.#options.clock.now() - this.#startedAt };
    if (!this.#running) this.#settle();
  }

  #settle(): void {
    const { accounts, call, clock, emit, tenant, token } = this.#options;
    const { error, durationMs = 0 } = this.#ended ?? {};
    const usedMs = this.#gpuMs === 0 && this.#begun ? this.#chargedMs : this.#gpuMs;
    accounts.correct(tenant, usedMs - this.#chargedMs, clock.now());
    const { request_id: requestId = '', model = '', node_id: nodeId = '' } = call.notes;
    emit({
      type: 'requestEnded',
      tenant,
      tokenId: token?.id ?? '',
      requestId: String(requestId),
      model: String(model),
      nodeId: String(nodeId),
      code: error?.code ?? Code.OK,
      reason: error?.reason ?? 'OK',
      gpuMs: this.#gpuMs,
      imageCount: error ? 0 : this.#imageCount,
      durationMs,
    });
  }
}
