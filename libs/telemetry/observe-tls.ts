/** The certificates of a service as series and lines: when they expire, and whether their files can be used. */
import type { Emit } from '#core';
import type { TlsEvent } from '#tls';
import type { Logger } from './logger.js';
import type { Metrics } from './metrics.js';

export function observeTls({ metrics, logger }: { metrics: Metrics; logger: Logger }): Emit<TlsEvent> {
  const loads = metrics.counter({
    name: 'dmesh_tls_loads_total',
    help: 'Times the certificate files were read, by whether they could be used.',
    labels: ['result'],
  });
  const expiry = metrics.gauge({
    name: 'dmesh_tls_expiry_timestamp_seconds',
    help: 'When the first certificate in a file expires, in seconds since 1970.',
    labels: ['file'],
  });
  return (event) => {
    switch (event.type) {
      case 'tlsLoaded': {
        loads.with({ result: 'loaded' }).add();
        expiry.clear();
        for (const { file, atEpochMs } of event.expiries) expiry.with({ file }).set(atEpochMs / 1000);
        const expires = Object.fromEntries(event.expiries.map(({ file, atEpochMs }) => [file, new Date(atEpochMs).toISOString()]));
        return logger.info({ paths: event.paths, expires }, 'certificates loaded');
      }
      case 'tlsRejected':
        loads.with({ result: 'rejected' }).add();
        return logger.error({ paths: event.paths, faults: event.faults }, 'certificates refused, the last good ones hold');
      default:
        event satisfies never;
    }
  };
}
