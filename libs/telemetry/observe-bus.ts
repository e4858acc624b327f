/** What happens to a service's connection to NATS, as series and lines. */
import type { BusEvent } from '#bus';
import type { Emit } from '#core';
import type { Logger } from './logger.js';
import type { Metrics } from './metrics.js';

export function observeBus({ metrics, logger }: { metrics: Metrics; logger: Logger }): Emit<BusEvent> {
  const changes = metrics.counter({ name: 'dmesh_bus_events_total', help: 'What happened to the NATS connection.', labels: ['event'] });
  return (event) => {
    changes.with({ event: event.type }).add();
    switch (event.type) {
      case 'busConnected':
        return logger.info({ nats: event.server }, 'NATS connected');
      case 'busReconnected':
        return logger.info({ nats: event.server, away_ms: Math.round(event.awayMs) }, 'NATS reconnected');
      case 'busDisconnected':
        return logger.warn({ nats: event.server, cause: event.cause }, 'NATS lost');
      case 'busStale':
        return logger.warn({ nats: event.server }, 'NATS answers no pings');
      case 'busConnectFailed':
        return logger.warn({ nats: event.server, cause: event.cause }, 'NATS not reached');
      case 'busError':
        return logger.warn({ cause: event.cause }, 'NATS error');
      case 'busHandlerFailed':
        return logger.error({ subject: event.subject, error: event.error }, 'a message could not be handled');
      case 'beatRejected':
        return logger.warn({ subject: event.subject, fault: event.fault }, 'beat rejected');
      default:
        event satisfies never;
    }
  };
}
