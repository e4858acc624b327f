import type { EnvReader } from '#runtime';
import { addressRule } from './addresses.js';

export type WebhookConfig = ReturnType<typeof readWebhookConfig>;

/** Every setting of webhooks with its default and the reason for it. */
export function readWebhookConfig(read: EnvReader) {
  const config = {
    file: read.optionalString(
      'DMESH_JOBS_WEBHOOKS_FILE',
      "JSON file of tenants' webhook secrets and URLs; none: nobody is told. Followed as it changes.",
    ),
    allow: read.optionalString(
      'DMESH_JOBS_WEBHOOK_ALLOW',
      'Ranges such as 10.0.0.0/8,fd00::/8 that webhooks may go to besides public addresses.',
    ),
    connectTimeoutMs: read.durationMs('DMESH_JOBS_WEBHOOK_CONNECT_TIMEOUT', 5000, 'For name, connection and TLS of a receiver …'),
    // What Standard Webhooks advises.
    timeoutMs: read.durationMs('DMESH_JOBS_WEBHOOK_TIMEOUT', 15_000, '… and for all of an attempt, its answer included.'),
    retry: {
      firstDelayMs: read.durationMs('DMESH_JOBS_WEBHOOK_RETRY_DELAY', 5000, 'After a failed attempt; doubles each time …'),
      maxDelayMs: read.durationMs('DMESH_JOBS_WEBHOOK_RETRY_MAX_DELAY', 2 * 3_600_000, '… up to this, less up to a half by chance …'),
      giveUpAfterMs: read.durationMs('DMESH_JOBS_WEBHOOK_GIVE_UP_AFTER', 24 * 3_600_000, '… until so long after the first attempt.'),
    },
    maxCount: read.integer('DMESH_JOBS_WEBHOOK_AT_ONCE', 128, { min: 1, max: 10_000 }, 'Attempts under way at a time …'),
    // So it takes thirty receivers that hang to make others wait at all, and then for a fraction of a second.
    maxPerReceiverCount: read.integer('DMESH_JOBS_WEBHOOK_PER_RECEIVER', 4, { min: 1, max: 10_000 }, '… and of those to one host.'),
  };
  try {
    addressRule(config.allow);
  } catch (error) {
    read.fault(`DMESH_JOBS_WEBHOOK_ALLOW: ${error instanceof Error ? error.message : String(error)}`);
  }
  return config;
}
