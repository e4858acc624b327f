/** Node events as log lines and series. New figure: new event, new case here. */
import type { BusEvent, GpuReport } from '#bus';
import type { Emit } from '#core';
import { DURATION_BUCKETS_SECONDS, type Logger, type Metrics, observeBus } from '#telemetry';
import type { NodeEvent } from './events.js';

export interface Sources {
  readonly slotBusy: () => boolean;
  readonly enginePhase: () => string;
  readonly routerCount: () => number;
  readonly models: () => readonly { readonly loaded: boolean }[];
  readonly unusableModelCount: () => number;
  readonly gpu: () => GpuReport | null;
}

const PHASES = ['starting', 'checking', 'ready', 'restarting', 'failed', 'stopped'] as const;
const RATIO_BUCKETS = [0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10];
const STEP_BUCKETS_SECONDS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30];

export function observe(options: { logger: Logger; metrics: Metrics; sources: () => Sources | undefined }): Emit<NodeEvent | BusEvent> {
  const count = series(options);
  const { logger } = options;
  const bus = observeBus(options);
  return (event) => {
    count(event);
    switch (event.type) {
      case 'engineStarted':
        return logger.info({ pid: event.pid, start: event.startCount }, 'engine started');
      case 'engineReady':
        return logger.info({ engine: event.engine, model: event.model, took_ms: round(event.tookMs) }, 'engine ready');
      case 'modelLoaded':
        return logger.info({ model: event.model, revision: event.revision, took_ms: round(event.tookMs) }, 'model loaded');
      case 'modelUnloaded':
        return logger.info({ model: event.model, revision: event.revision }, 'model unloaded');
      case 'modelUnusable':
        return logger.error({ dir: event.dir, why: event.why }, 'model unusable: not offered');
      case 'engineLost':
        return logger.error({ why: event.why, failures: event.failureCount, restart_in_ms: round(event.delayMs) }, 'engine lost');
      case 'engineKilled':
        return logger.error({ why: event.why }, 'engine killed');
      case 'engineSuspected':
        return logger.warn({ why: event.why }, 'engine in doubt, drawing a canary');
      case 'engineOutgrown':
        return logger.warn(
          { used_bytes: event.usedBytes, limit_bytes: event.limitBytes },
          'engine uses too much memory, a fresh one takes its place',
        );
      case 'engineStopped':
        return logger.info({}, 'engine stopped');
      case 'engineLogged':
        return logger[event.level]({ ...event.fields, from: 'engine' }, event.message);
      case 'canaryDrawn': {
        const fields = { digest: event.digest, expected: event.expected, took_ms: round(event.tookMs) };
        return event.passed ? logger.info(fields, 'canary passed') : logger.error(fields, 'canary failed: the picture differs');
      }
      case 'drawEnded':
        return logger.debug(
          {
            request_id: event.requestId,
            lease_id: String(event.leaseId),
            predicted_ms: round(event.predictedMs ?? 0),
            took_ms: round(event.tookMs),
            reason: event.error?.reason ?? 'OK',
          },
          'request left the engine',
        );
      case 'drawStopped':
        return logger.info(
          { request_id: event.requestId, took_ms: round(event.tookMs), killed: event.killed },
          'request taken off the engine',
        );
      case 'drawPaused':
        return logger.debug({ request_id: event.requestId, priority: event.priority }, 'request paused');
      case 'pauseEnded':
        return logger.debug({ request_id: event.requestId, paused_ms: round(event.pausedMs) }, 'pause ended');
      case 'routerAttached':
        return logger.info({ router_id: event.routerId, peer: event.peer }, 'router attached');
      case 'routerLeft':
        return logger.info({ router_id: event.routerId }, 'router left');
      case 'slotGranted':
        return logger.debug({ router_id: event.routerId, lease_id: String(event.leaseId) }, 'slot granted');
      case 'grantLapsed':
        return logger.warn(
          { router_id: event.routerId, lease_id: String(event.leaseId), passed_over_ms: event.pauseMs },
          'a router did not use its grant',
        );
      case 'drainChanged':
        return logger.info({ by: event.by }, event.draining ? 'draining' : 'taking work again');
      case 'controlReceived':
        return logger.info({ action: event.action }, 'control');
      case 'imageEncoded':
      case 'stepDone':
        return;
      default:
        bus(event);
    }
  };
}

function series({ metrics, sources }: { metrics: Metrics; sources: () => Sources | undefined }): Emit<NodeEvent | BusEvent> {
  const draws = metrics.counter({
    name: 'dmesh_node_draws_total',
    help: 'Requests that left the engine, by reason (OK when drawn).',
    labels: ['reason'],
  });
  const steps = metrics.counter({ name: 'dmesh_node_steps_total', help: 'Denoising steps done; its rate is steps per second.' });
  const stepTimes = metrics.histogram({
    name: 'dmesh_node_step_duration_seconds',
    help: 'Time of one denoising step.',
    buckets: STEP_BUCKETS_SECONDS,
  });
  const executions = metrics.histogram({
    name: 'dmesh_node_execution_duration_seconds',
    help: 'Engine time of a drawn request.',
    buckets: DURATION_BUCKETS_SECONDS,
  });
  const predictions = metrics.histogram({
    name: 'dmesh_node_cost_ratio',
    help: 'Actual over predicted engine time; 1 is a perfect prediction.',
    buckets: RATIO_BUCKETS,
  });
  const encodings = metrics.histogram({
    name: 'dmesh_node_encode_duration_seconds',
    help: 'Time to turn pixels into a file.',
    labels: ['type'],
    buckets: DURATION_BUCKETS_SECONDS,
  });
  const pauses = metrics.counter({
    name: 'dmesh_node_pauses_total',
    help: 'Running requests paused for a more urgent or much shorter one, by class of the paused.',
    labels: ['class'],
  });
  const pausedSeconds = metrics.counter({
    name: 'dmesh_node_paused_seconds_total',
    help: 'Time requests spent paused, by their class.',
    labels: ['class'],
  });
  const starts = metrics.counter({
    name: 'dmesh_node_engine_starts_total',
    help: 'Engine processes started; all but the first are restarts.',
  });
  const losses = metrics.counter({ name: 'dmesh_node_engine_losses_total', help: 'Engine processes that ended unasked.' });
  const canaries = metrics.counter({
    name: 'dmesh_node_canaries_total',
    help: 'Canary pictures, by whether they were right.',
    labels: ['passed'],
  });
  const grants = metrics.counter({ name: 'dmesh_node_grants_total', help: 'Slots granted to bids.' });
  const lapses = metrics.counter({
    name: 'dmesh_node_grants_lapsed_total',
    help: 'Grants that were neither used nor declined in time.',
  });
  const loads = metrics.histogram({
    name: 'dmesh_node_model_load_duration_seconds',
    help: 'Time from the decision to load a model until its canary was right, by model and revision; its count is the number of loads.',
    labels: ['model', 'revision'],
    buckets: DURATION_BUCKETS_SECONDS,
  });
  const loadFailures = metrics.counter({
    name: 'dmesh_node_model_failures_total',
    help: 'Model folders found unusable, by folder.',
    labels: ['dir'],
  });
  metrics.gauge({
    name: 'dmesh_node_models',
    help: 'Model folders: loaded, offered (could be loaded), unusable.',
    labels: ['state'],
    collect: (gauge) => {
      const models = sources()?.models() ?? [];
      const loadedCount = models.filter(({ loaded }) => loaded).length;
      gauge.with({ state: 'loaded' }).set(loadedCount);
      gauge.with({ state: 'offered' }).set(models.length - loadedCount);
      gauge.with({ state: 'unusable' }).set(sources()?.unusableModelCount() ?? 0);
    },
  });
  const gpu = () => sources()?.gpu();
  metrics.gauge({
    name: 'dmesh_node_gpu_memory_bytes',
    help: "The GPU's memory: used, total, and peak: the most seen in use since the node started. 0 without a GPU.",
    labels: ['kind'],
    collect: (gauge) => {
      gauge.with({ kind: 'used' }).set(gpu()?.memoryUsedBytes ?? 0);
      gauge.with({ kind: 'total' }).set(gpu()?.memoryTotalBytes ?? 0);
      gauge.with({ kind: 'peak' }).set(gpu()?.memoryPeakBytes ?? 0);
    },
  });
  metrics.gauge({
    name: 'dmesh_node_gpu_utilisation_ratio',
    help: 'Part of the time that the GPU was at work, as its driver says.',
    collect: (gauge) => gauge.with().set(gpu()?.utilisationRatio ?? 0),
  });
  metrics.gauge({
    name: 'dmesh_node_gpu_temperature_celsius',
    help: 'Temperature of the GPU.',
    collect: (gauge) => gauge.with().set(gpu()?.temperatureCelsius ?? 0),
  });
  metrics.gauge({
    name: 'dmesh_node_slot_busy',
    help: '1 when the slot runs a request or is promised.',
    collect: (gauge) => gauge.with().set(sources()?.slotBusy() ? 1 : 0),
  });
  metrics.gauge({
    name: 'dmesh_node_routers',
    help: 'Routers attached.',
    collect: (gauge) => gauge.with().set(sources()?.routerCount() ?? 0),
  });
  metrics.gauge({
    name: 'dmesh_node_engine_state',
    help: '1 for the state the engine is in.',
    labels: ['state'],
    collect: (gauge) => {
      for (const state of PHASES) gauge.with({ state }).set(sources()?.enginePhase() === state ? 1 : 0);
    },
  });
  return (event) => {
    switch (event.type) {
      case 'stepDone':
        steps.with().add();
        return stepTimes.with().observe(event.stepMs / 1000);
      case 'drawEnded':
        draws.with({ reason: event.error?.reason ?? 'OK' }).add();
        if (event.error) return;
        executions.with().observe(event.tookMs / 1000);
        if (event.predictedMs !== undefined && event.predictedMs > 0) predictions.with().observe(event.tookMs / event.predictedMs);
        return;
      case 'drawPaused':
        return pauses.with({ class: event.priority }).add();
      case 'pauseEnded':
        return pausedSeconds.with({ class: event.priority }).add(event.pausedMs / 1000);
      case 'imageEncoded':
        return encodings.with({ type: event.mimeType }).observe(event.tookMs / 1000);
      case 'modelLoaded':
        return loads.with({ model: event.model, revision: event.revision }).observe(event.tookMs / 1000);
      case 'modelUnusable':
        return loadFailures.with({ dir: event.dir }).add();
      case 'engineStarted':
        return starts.with().add();
      case 'engineLost':
        return losses.with().add();
      case 'canaryDrawn':
        return canaries.with({ passed: String(event.passed) }).add();
      case 'slotGranted':
        return grants.with().add();
      case 'grantLapsed':
        return lapses.with().add();
    }
  };
}

function round(ms: number): number {
  return Math.round(ms * 10) / 10;
}
