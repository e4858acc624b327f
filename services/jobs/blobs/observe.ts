/** The store of pictures as series and lines. */
import { type Emit, Reason } from '#core';
import { DURATION_BUCKETS_SECONDS, type Logger, type Metrics } from '#telemetry';
import type { BlobEvent } from './events.js';

export function observeBlobs({ logger, metrics }: { logger: Logger; metrics: Metrics }): Emit<BlobEvent> {
  const calls = metrics.counter({
    name: 'dmesh_jobs_store_calls_total',
    help: 'Calls to the store of pictures, by place (live, archive), operation (put, read, delete, link) and reason (OK when it did).',
    labels: ['place', 'operation', 'reason'],
  });
  const duration = metrics.histogram({
    name: 'dmesh_jobs_store_call_duration_seconds',
    help: 'Time of a call to the store of pictures, by operation.',
    labels: ['operation'],
    buckets: DURATION_BUCKETS_SECONDS,
  });
  const bytes = metrics.counter({
    name: 'dmesh_jobs_store_bytes_total',
    help: 'Bytes of pictures written (put) and read.',
    labels: ['operation'],
  });
  return ({ place, operation, name, failure, sizeBytes, durationMs }) => {
    calls.with({ place, operation, reason: failure?.reason ?? 'OK' }).add();
    duration.with({ operation }).observe(durationMs / 1000);
    if (sizeBytes > 0) bytes.with({ operation }).add(sizeBytes);
    if (failure === undefined) return;
    const fields = { place, operation, blob: name, reason: failure.reason, detail: failure.message };
    // Every picture is looked for in both places, and may be deleted meanwhile.
    if (failure.reason === Reason.RESULT_MISSING) return logger.debug(fields, 'picture not here');
    if (failure.reason === Reason.RESULT_DAMAGED) return logger.error(fields, 'picture damaged');
    logger.warn({ ...fields, error: failure }, 'store of pictures failed');
  };
}
