/**
 * One attempt to tell a receiver that a job has ended, as Standard Webhooks has it (standardwebhooks.com): a POST
 * with the event's id, the time, and a signature over both and the body. The host is resolved for each attempt,
 * every address is looked at, and only those that were looked at are connected to, so that a name which leads
 * elsewhere the next moment (DNS rebinding) gains nothing.
 */
import type { Clock, Emit } from '#core';
import type { Job } from '../domain/job.js';
import type { IsAllowed } from './addresses.js';
import type { WebhookEvent } from './events.js';
import { type Message, messageOf } from './message.js';
import type { FailureReason, Outcome } from './outcome.js';
import { post } from './post.js';
import { addressesByText, checkReceiverUrl, hostOf, receiverOf } from './receiver-url.js';
import type { Resolve } from './resolve.js';
import type { WebhookBook } from './webhook-book.js';

export interface DelivererOptions {
  readonly book: Pick<WebhookBook, 'signerFor'>;
  readonly isAllowed: IsAllowed;
  readonly resolve: Resolve;
  readonly clock: Clock;
  /** Milliseconds since 1970. */
  readonly wallNow: () => number;
  readonly emit: Emit<WebhookEvent>;
  /** For the name, the connection and its TLS. */
  readonly connectTimeoutMs: number;
  /** For all of it. */
  readonly timeoutMs: number;
}

interface Order {
  readonly tenant: string;
  readonly url: string;
  readonly message: Message;
  readonly signal: AbortSignal;
}

const USER_AGENT = 'diffusion-mesh';

export class Deliverer {
  readonly #options: DelivererOptions;

  constructor(options: DelivererOptions) {
    this.#options = options;
  }

  /** Undefined for a job that has nothing to tell. Rejects only with the signal's reason. */
  async deliver(job: Job, signal: AbortSignal): Promise<Outcome | undefined> {
    const message = messageOf(job);
    if (!job.webhook || !message) return undefined;
    const { clock, emit } = this.#options;
    const { tenant, jobId, webhook } = job;
    const startedAt = clock.now();
    const outcome = await this.#attempt({ tenant, url: webhook.url, message, signal });
    const [result, error] = outcome.kind === 'delivered' ? (['delivered', ''] as const) : [outcome.reason, outcome.error];
    const host = receiverOf(webhook.url);
    emit({ type: 'webhookAttempted', tenant, jobId, eventId: message.id, host, result, error, durationMs: clock.now() - startedAt });
    return outcome;
  }

  async #attempt(order: Order): Promise<Outcome> {
    try {
      return outcomeOf(await this.#post(order));
    } catch (error) {
      if (error instanceof Undelivered) return { kind: 'failed', reason: error.reason, error: error.message };
      throw error;
    }
  }

  /** Resolves with the status; rejects with Undelivered, or the signal's reason. */
  async #post({ tenant, url: text, message, signal }: Order): Promise<number> {
    const { book, isAllowed, wallNow } = this.#options;
    const signer = book.signerFor(tenant);
    if (!signer) throw new Undelivered('secret', `there is no secret to sign it with for tenant ${tenant}`);
    const checked = checkReceiverUrl(text, isAllowed);
    if (!checked.ok) throw new Undelivered('address', checked.fault);
    const { url } = checked;
    const limits = this.#limits(signal);
    try {
      const addresses = await this.#addressesOf(url, limits.signal);
      const at = new Date(wallNow());
      const headers = {
        'content-type': 'application/json',
        'user-agent': USER_AGENT,
        'webhook-id': message.id,
        'webhook-timestamp': String(Math.floor(at.getTime() / 1000)),
        'webhook-signature': signer.sign(message.id, at, message.body),
      };
      return await post({ url, addresses, headers, body: message.body, signal: limits.signal, onConnected: limits.connected });
    } catch (error) {
      limits.signal.throwIfAborted();
      throw error instanceof Undelivered ? error : limits.brokenOff(error);
    } finally {
      limits.end();
    }
  }

  /** Only those that webhooks may go to. */
  async #addressesOf(url: URL, signal: AbortSignal): Promise<readonly string[]> {
    const { isAllowed, resolve } = this.#options;
    const found = addressesByText(url) ?? (await Promise.race([resolve(hostOf(url)), aborted(signal)]).catch(nowhere));
    const allowed = found.filter(isAllowed);
    // Without the addresses: what names mean inside this network is not for everybody who submits a job.
    if (allowed.length === 0) throw new Undelivered('address', 'its name leads to no address that webhooks may go to');
    return allowed;
  }

  /** A signal that aborts with `signal`, or when the attempt takes too long. */
  #limits(signal: AbortSignal) {
    const { clock, connectTimeoutMs, timeoutMs } = this.#options;
    const controller = new AbortController();
    const after = (ms: number, text: string) =>
      clock.schedule(ms, () => controller.abort(new Undelivered('timeout', `${text} within ${ms} ms`)));
    const stop = () => controller.abort(signal.reason);
    const cancelConnect = after(connectTimeoutMs, 'no connection');
    const cancelAnswer = after(timeoutMs, 'no answer');
    let connected = false;
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    return {
      signal: controller.signal,
      connected: () => {
        connected = true;
        cancelConnect();
      },
      brokenOff: (error: unknown) =>
        connected
          ? new Undelivered('lost', `the connection broke: ${codeOf(error)}`)
          : new Undelivered('connect', `no connection: ${codeOf(error)}`),
      end: () => {
        cancelConnect();
        cancelAnswer();
        signal.removeEventListener('abort', stop);
      },
    };
  }
}

class Undelivered extends Error {
  override readonly name = 'Undelivered';
  constructor(
    readonly reason: Exclude<FailureReason, 'gone'>,
    message: string,
  ) {
    super(message);
  }
}

function outcomeOf(status: number): Outcome {
  if (status >= 200 && status < 300) return { kind: 'delivered' };
  if (status >= 300 && status < 400) return { kind: 'failed', reason: 'redirect', error: `answered ${status}; redirects are not followed` };
  if (status === 410) return { kind: 'unwanted', reason: 'gone', error: 'answered 410: it wants no more' };
  return { kind: 'failed', reason: 'status', error: `answered ${status}` };
}

function nowhere(error: unknown): never {
  throw new Undelivered('name', `its name leads nowhere: ${codeOf(error)}`);
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

/** Such as ECONNREFUSED or DEPTH_ZERO_SELF_SIGNED_CERT: no words of the receiver's, no addresses. */
function codeOf(error: unknown): string {
  if (error instanceof Error && 'code' in error) return String(error.code);
  return error instanceof Error ? error.message : String(error);
}
