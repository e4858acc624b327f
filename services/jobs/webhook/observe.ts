/** Webhooks as series and lines. */
import { Code, type Emit, StatusError } from '#core';
import { DURATION_BUCKETS_SECONDS, type Logger, type Metrics } from '#telemetry';
import type { WebhookEvent } from './events.js';

export interface WebhookSources {
  readonly waitingCount: () => number;
  readonly sendingCount: () => number;
}

export function observeWebhooks({
  logger,
  metrics,
  sources,
}: {
  logger: Logger;
  metrics: Metrics;
  sources: WebhookSources;
}): Emit<WebhookEvent> {
  const attempts = metrics.counter({
    name: 'dmesh_jobs_webhook_attempts_total',
    help: 'Attempts to tell a receiver that a job has ended, by result.',
    labels: ['result'],
  });
  const duration = metrics.histogram({
    name: 'dmesh_jobs_webhook_attempt_duration_seconds',
    help: 'Time of one attempt, name and connection included.',
    buckets: DURATION_BUCKETS_SECONDS,
  });
  const givenUp = metrics.counter({ name: 'dmesh_jobs_webhooks_given_up_total', help: 'Webhooks that were not taken in a day.' });
  const loads = metrics.counter({
    name: 'dmesh_jobs_webhook_loads_total',
    help: 'Times the file of webhooks was read, by whether it could be used.',
    labels: ['result'],
  });
  metrics.gauge({
    name: 'dmesh_jobs_webhooks_waiting',
    help: 'Webhooks that are due and wait for their turn.',
    collect: (gauge) => gauge.with().set(sources.waitingCount()),
  });
  metrics.gauge({
    name: 'dmesh_jobs_webhooks_sending',
    help: 'Attempts under way.',
    collect: (gauge) => gauge.with().set(sources.sendingCount()),
  });
  return (event) => {
    switch (event.type) {
      case 'webhookAttempted': {
        const { result, durationMs } = event;
        attempts.with({ result }).add();
        duration.with().observe(durationMs / 1000);
        const fields = { tenant: event.tenant, job_id: event.jobId, event_id: event.eventId, host: event.host };
        return result === 'delivered'
          ? logger.debug({ ...fields, duration_ms: Math.round(durationMs) }, 'webhook delivered')
          : logger.info({ ...fields, reason: result, detail: event.error }, 'webhook not delivered');
      }
      case 'webhookGivenUp':
        givenUp.with().add();
        return logger.warn(
          { tenant: event.tenant, job_id: event.jobId, event_id: event.eventId, detail: event.error },
          'webhook given up: its receiver was not told',
        );
      case 'webhookPostponed': {
        const { error, jobId, tenant } = event;
        // That NATS is away is told once, not for each of thousands.
        const away = error instanceof StatusError && error.code === Code.UNAVAILABLE;
        return logger[away ? 'debug' : 'warn']({ tenant, job_id: jobId, error }, 'webhook postponed: its record is out of reach');
      }
      case 'webhooksLoaded':
        loads.with({ result: 'loaded' }).add();
        return logger.info({ path: event.path, tenants: event.tenantCount }, 'webhooks loaded');
      case 'webhooksRejected':
        loads.with({ result: 'rejected' }).add();
        return logger.error({ path: event.path, faults: event.faults }, 'file of webhooks refused, the last good one holds');
      default:
        event satisfies never;
    }
  };
}
