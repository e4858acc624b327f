/** The file of webhooks as it changes: the last good one holds, and there is an event for each reading. */
import type { Clock, Emit } from '#core';
import { FollowedFiles } from '#runtime';
import type { IsAllowed } from './addresses.js';
import type { WebhookEvent } from './events.js';
import { parseWebhookFile, type WebhookSettings } from './webhook-file.js';

export interface WebhookSourceOptions {
  readonly path: string;
  readonly isAllowed: IsAllowed;
  readonly clock: Clock;
  readonly emit: Emit<WebhookEvent>;
  readonly onSettings: (settings: WebhookSettings) => void;
}

const MAX_FILE_BYTES = 16 * 1024 * 1024;

export class WebhookSource extends FollowedFiles {
  constructor({ path, isAllowed, clock, emit, onSettings }: WebhookSourceOptions) {
    const take = (text: string): readonly string[] => {
      const parsed = parseWebhookFile(text, isAllowed);
      if (!parsed.ok) return parsed.faults.map((fault) => `${path}: ${fault}`);
      onSettings(parsed.settings);
      emit({ type: 'webhooksLoaded', path, tenantCount: parsed.settings.tenants.size });
      return [];
    };
    super({
      paths: [path],
      clock,
      maxBytes: MAX_FILE_BYTES,
      take: ([content]) => take(content?.toString('utf8') ?? ''),
      onRejected: (faults) => emit({ type: 'webhooksRejected', path, faults }),
    });
  }
}
