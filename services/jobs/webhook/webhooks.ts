/** Webhooks, put together: whom submissions may name, the file that is followed, and the teller. */
import type { Clock, Emit, Random } from '#core';
import { addressRule } from './addresses.js';
import type { WebhookConfig } from './config.js';
import { Deliverer } from './deliverer.js';
import type { WebhookEvent } from './events.js';
import { dnsResolver, type Resolve } from './resolve.js';
import { Teller, type TellerOptions } from './teller.js';
import { WebhookBook } from './webhook-book.js';
import { WebhookSource } from './webhook-source.js';

export interface WebhooksOptions extends Pick<TellerOptions, 'records' | 'index' | 'isMine'> {
  readonly config: WebhookConfig;
  readonly clock: Clock;
  readonly wallNow: () => number;
  readonly random: Random;
  readonly emit: Emit<WebhookEvent>;
  /** Default: DNS. */
  readonly resolve?: Resolve;
}

export type Webhooks = ReturnType<typeof createWebhooks>;

export function createWebhooks({ config, resolve = dnsResolver(), ...options }: WebhooksOptions) {
  const { clock, emit } = options;
  const { file, allow, connectTimeoutMs, timeoutMs, ...limits } = config;
  const isAllowed = addressRule(allow);
  const book = new WebhookBook(isAllowed);
  const source =
    file === undefined
      ? undefined
      : new WebhookSource({ path: file, isAllowed, clock, emit, onSettings: (settings) => book.replace(settings) });
  const deliverer = new Deliverer({ ...options, book, isAllowed, resolve, connectTimeoutMs, timeoutMs });
  const teller = new Teller({ ...options, ...limits, deliverer });
  return { book, source, teller };
}
