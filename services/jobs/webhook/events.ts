/** What happens to webhooks and to their file. */
import type { FailureReason } from './outcome.js';

export type WebhookEvent =
  /** One attempt is over. */
  | {
      readonly type: 'webhookAttempted';
      readonly tenant: string;
      readonly jobId: string;
      readonly eventId: string;
      /** Of the receiver; its path may hold secrets. */
      readonly host: string;
      readonly result: 'delivered' | FailureReason;
      /** '' when it was delivered. */
      readonly error: string;
      readonly durationMs: number;
    }
  /** The last attempt failed, or the receiver wants no more: nobody is told. */
  | { readonly type: 'webhookGivenUp'; readonly tenant: string; readonly jobId: string; readonly eventId: string; readonly error: string }
  /** The record could not be read, or not be changed: told again in a while. */
  | { readonly type: 'webhookPostponed'; readonly tenant: string; readonly jobId: string; readonly error: unknown }
  /** The file was read and holds from now on. */
  | { readonly type: 'webhooksLoaded'; readonly path: string; readonly tenantCount: number }
  /** The file cannot be used; the last good one holds. */
  | { readonly type: 'webhooksRejected'; readonly path: string; readonly faults: readonly string[] };
