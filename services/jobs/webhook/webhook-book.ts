/** What the service knows of tenants' webhooks: whom a job will tell, and which secret signs it. */
import { Webhook as Signer } from 'standardwebhooks';
import { Code, Reason, StatusError } from '#core';
import { UNTOLD, type Webhook } from '../domain/job.js';
import type { IsAllowed } from './addresses.js';
import { checkReceiverUrl } from './receiver-url.js';
import type { TenantWebhook, WebhookSettings } from './webhook-file.js';

export class WebhookBook {
  readonly #isAllowed: IsAllowed;
  #settings: WebhookSettings = { tenants: new Map(), fallback: undefined };

  constructor(isAllowed: IsAllowed) {
    this.#isAllowed = isAllowed;
  }

  replace(settings: WebhookSettings): void {
    this.#settings = settings;
  }

  /**
   * The webhook of a job that is submitted with this `url`; with '' the tenant's own, undefined when it has none.
   * Throws INVALID_ARGUMENT/WEBHOOK_REFUSED for one that could never be told.
   */
  webhookFor(tenant: string, url: string): Webhook | undefined {
    const known = this.#of(tenant);
    if (url === '') return known?.url === undefined ? undefined : { url: known.url, ...UNTOLD };
    if (!known) throw refused(`expected none: there is no secret to sign it with for tenant ${tenant}`);
    const checked = checkReceiverUrl(url, this.#isAllowed);
    if (!checked.ok) throw refused(checked.fault);
    return { url: checked.url.href, ...UNTOLD };
  }

  /** Undefined when no secret is known for the tenant. */
  signerFor(tenant: string): Signer | undefined {
    const known = this.#of(tenant);
    return known && new Signer(known.secret);
  }

  #of(tenant: string): TenantWebhook | undefined {
    return this.#settings.tenants.get(tenant) ?? this.#settings.fallback;
  }
}

function refused(description: string): StatusError {
  const field = 'options.webhook_url';
  return new StatusError({
    code: Code.INVALID_ARGUMENT,
    reason: Reason.WEBHOOK_REFUSED,
    message: `${field}: ${description}`,
    violations: [{ field, description }],
  });
}
