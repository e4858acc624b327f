/** Events of the jobs service as log lines and series. New figure: new event, new case here. */
import type { AccessEvent } from '#access';
import type { BusEvent, ReplicaEvent } from '#bus';
import { type Emit, Reason } from '#core';
import { DURATION_BUCKETS_SECONDS, type Logger, type Metrics, observeBus } from '#telemetry';
import type { StateKind } from './domain/job.js';
import type { JobsEvent } from './events.js';

export interface Sources {
  /** Of all jobs, whoever owns them. */
  readonly counts: () => Readonly<Record<StateKind, number>>;
  /** 0 when none waits. */
  readonly oldestWaitingMs: () => number;
  readonly storedBytes: () => number;
  readonly recordBytes: () => number;
  /** Jobs of this replica. */
  readonly ownedCount: () => number;
  /** Of those, ready to be handed over. */
  readonly readyCount: () => number;
  readonly attemptCounts: () => Readonly<Record<string, number>>;
  readonly slotCount: () => number;
  readonly replicaCount: () => number;
  readonly routerCount: () => number;
  readonly isFollowing: () => boolean;
}

/** A reason may come from another mesh; only known words become label values. */
const KNOWN_REASONS: ReadonlySet<string> = new Set([...Object.values(Reason), 'OK', 'LATE']);
/** From a picture that is drawn at once to a job that waits for days. */
const STATE_BUCKETS_SECONDS = [...DURATION_BUCKETS_SECONDS, 1800, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600];

export function observe({
  logger,
  metrics,
  sources,
}: {
  logger: Logger;
  metrics: Metrics;
  sources: Sources;
}): Emit<JobsEvent | AccessEvent | ReplicaEvent | BusEvent> {
  const ended = metrics.counter({
    name: 'dmesh_jobs_ended_total',
    help: 'Jobs of this replica that have ended, by state.',
    labels: ['state'],
  });
  const stateTime = metrics.histogram({
    name: 'dmesh_jobs_state_seconds',
    help: 'Time jobs of this replica spent in a state that they left; queued: since they were submitted.',
    labels: ['state'],
    buckets: STATE_BUCKETS_SECONDS,
  });
  const attempts = metrics.counter({
    name: 'dmesh_jobs_attempts_total',
    help: 'Attempts that are over, by outcome (succeeded, failed, again, waits, lost) and reason.',
    labels: ['outcome', 'reason'],
  });
  const delays = metrics.counter({
    name: 'dmesh_jobs_recording_delays_total',
    help: 'Times a picture waited for the store, or its record for NATS.',
  });
  const takenBack = metrics.counter({ name: 'dmesh_jobs_taken_back_total', help: 'Jobs that waited anew because their worker had died.' });
  const forgotten = metrics.counter({
    name: 'dmesh_jobs_forgotten_total',
    help: 'Records removed: after their retention, or of batches never committed.',
    labels: ['why'],
  });
  const postponed = metrics.counter({
    name: 'dmesh_jobs_chores_postponed_total',
    help: 'Expiries and removals that did not work out at once.',
  });
  const unreadable = metrics.counter({
    name: 'dmesh_jobs_unreadable_records_total',
    help: 'Entries of the bucket that are no records of jobs.',
  });
  const swept = metrics.counter({
    name: 'dmesh_jobs_swept_total',
    help: 'Pictures the sweep removed or moved, by what: orphan, temporary, archived; or left: damaged, failed.',
    labels: ['what'],
  });
  const sweepFailures = metrics.counter({
    name: 'dmesh_jobs_sweep_failures_total',
    help: 'Looks through the store that did not come to an end.',
  });
  const tokenLoads = metrics.counter({
    name: 'dmesh_jobs_token_loads_total',
    help: 'Times the token file was read, by whether it could be used.',
    labels: ['result'],
  });
  const bus = observeBus({ logger, metrics });
  metrics.gauge({
    name: 'dmesh_jobs_jobs',
    help: 'Jobs by state, of all replicas.',
    labels: ['state'],
    collect: (gauge) => {
      for (const [state, count] of Object.entries(sources.counts())) gauge.with({ state }).set(count);
    },
  });
  metrics.gauge({
    name: 'dmesh_jobs_running_attempts',
    help: 'Attempts of this replica, by what they do: handed to a router, drawing, keeping what was drawn.',
    labels: ['phase'],
    collect: (gauge) => {
      for (const [phase, count] of Object.entries(sources.attemptCounts())) gauge.with({ phase }).set(count);
    },
  });
  const figures = [
    ['dmesh_jobs_oldest_waiting_seconds', 'Age of the oldest job that waits; 0: none does.', () => sources.oldestWaitingMs() / 1000],
    ['dmesh_jobs_stored_bytes', 'Pictures that records name.', sources.storedBytes],
    ['dmesh_jobs_record_bytes', 'Records in JetStream.', sources.recordBytes],
    ['dmesh_jobs_owned', 'Jobs this replica looks after.', sources.ownedCount],
    ['dmesh_jobs_ready', 'Of those, ready to be handed to a router.', sources.readyCount],
    ['dmesh_jobs_mesh_slots', 'Requests the mesh can draw at once, as nodes tell.', sources.slotCount],
    ['dmesh_jobs_replicas', 'Replicas of the jobs service that live, this one included.', sources.replicaCount],
    ['dmesh_jobs_routers', 'Routers known to this replica.', sources.routerCount],
    ['dmesh_jobs_following', '1 while the records are followed.', () => (sources.isFollowing() ? 1 : 0)],
  ] as const;
  for (const [name, help, read] of figures) metrics.gauge({ name, help, collect: (gauge) => gauge.with().set(read()) });

  return (event) => {
    switch (event.type) {
      case 'jobChanged': {
        const { attempt, before, nodeId, state, tookMs } = event;
        if (before !== undefined && before !== state && tookMs !== undefined) stateTime.with({ state: before }).observe(tookMs / 1000);
        const isOver = state !== 'queued' && state !== 'running';
        if (isOver && before !== state) ended.with({ state }).add();
        const fields = { ...named(event), state, attempt, ...(nodeId === '' ? {} : { node_id: nodeId }) };
        // It changes once more when its webhook is told.
        return isOver && before !== state ? logger.info(fields, 'job ended') : logger.debug(fields, 'job changed');
      }
      case 'jobWaits':
      case 'jobStepped':
      case 'jobTurnedAway':
        return; // told on NATS
      case 'attemptEnded': {
        const { detail, outcome, reason, requestId } = event;
        attempts.with({ outcome, reason: KNOWN_REASONS.has(reason) ? reason : 'OTHER' }).add();
        const fields = { ...named(event), request_id: requestId, outcome, reason, ...(detail === '' ? {} : { detail }) };
        if (outcome === 'succeeded') return logger.debug(fields, 'attempt over');
        if (outcome === 'waits' && reason === Reason.UNAUTHENTICATED) {
          return logger.error(fields, 'routers refuse our token: DMESH_JOBS_ROUTER_TOKEN');
        }
        return outcome === 'failed' ? logger.warn(fields, 'attempt failed, and its job with it') : logger.info(fields, 'attempt over');
      }
      case 'attemptLost':
        return logger.error({ ...named(event), error: event.error }, 'attempt over without a record of it');
      case 'recordingDelayed':
        delays.with().add();
        return logger[event.again ? 'debug' : 'warn']({ ...named(event), error: event.error }, 'picture kept here, recorded later');
      case 'jobTakenBack':
        takenBack.with().add();
        return logger.info({ ...named(event), worker: event.worker }, 'job taken back from a worker that is gone');
      case 'jobForgotten':
        forgotten.with({ why: event.why }).add();
        return logger.debug({ ...named(event), why: event.why }, 'job forgotten');
      case 'chorePostponed':
        postponed.with().add();
        return logger.info({ ...named(event), error: event.error }, 'job looked after later');
      case 'recordsState':
        if (event.state === 'unavailable') return logger.error({ cause: event.cause }, 'no records: nowhere to keep them');
        return logger.info({ state: event.state }, event.state === 'following' ? 'records followed' : 'records not followed, NATS is away');
      case 'recordUnreadable':
        unreadable.with().add();
        return logger.error({ key: event.key, error: event.error }, 'no record of ours, passed over');
      case 'displaced':
        return logger.error(
          { replica: event.replicaId, incarnation: event.incarnation },
          'another process with the id of this replica started later: this one runs no jobs until that one is gone',
        );
      case 'storeSwept': {
        const { archivedBytes, damagedCount, failedCount, liveBytes, movedCount, orphanCount, temporaryCount } = event;
        const counts = { orphan: orphanCount, temporary: temporaryCount, archived: movedCount, damaged: damagedCount, failed: failedCount };
        for (const [what, count] of Object.entries(counts)) swept.with({ what }).add(count);
        const level = damagedCount + failedCount > 0 ? 'warn' : 'info';
        return logger[level]({ ...counts, live_bytes: liveBytes, archived_bytes: archivedBytes }, 'store swept');
      }
      case 'sweepFailed':
        sweepFailures.with().add();
        return logger.warn({ error: event.error }, 'store not swept to its end');
      case 'accessOpen': {
        const who =
          event.callerCa === undefined ? 'everybody who reaches this replica' : 'everybody with a certificate of the CA of callers';
        return logger.warn({ grpc: event.listen }, `OPEN: there is no token file, ${who} may submit jobs and fetch their pictures`);
      }
      case 'tokensLoaded':
        tokenLoads.with({ result: 'loaded' }).add();
        return logger.info({ path: event.path, tokens: event.tokenCount }, 'tokens loaded');
      case 'tokensRejected':
        tokenLoads.with({ result: 'rejected' }).add();
        return logger.error({ path: event.path, faults: event.faults }, 'token file refused, the last good one holds');
      case 'replicaJoined':
      case 'replicaRestarted':
        return logger.info({ kind: event.service, replica: event.replica.id, address: event.replica.address }, 'replica there');
      case 'replicaGone':
        return logger.info({ kind: event.service, replica: event.replica.id, cause: event.cause }, 'replica gone');
      default:
        bus(event);
    }
  };
}

function named({ tenant, jobId }: { tenant: string; jobId: string }): { tenant: string; job_id: string } {
  return { tenant, job_id: jobId };
}
