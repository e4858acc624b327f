/**
 * The jobs service, put together. A job's way, top to bottom:
 *
 *   rpc        who asks, what exactly, is there room; then a record is created
 *   store      one record for each job, changed by compare and set
 *   index      every job in short, in memory, at every replica
 *   Share      which of them are this replica's, by who lives
 *   Runner     whose turn it is, as many as the mesh will soon have slots for
 *     Attempt  a router draws it; the picture is stored, then the record names it
 *   Keeper     expiry, retention, what was never committed; Sweeper: pictures that no record names
 *   Teller     receivers of webhooks are told what has ended
 *   JobNews    what NATS users and other replicas are told meanwhile
 *
 * NATS, servers and the process around it are build.ts.
 */
import type { Bus } from '#bus';
import type { Clock, Emit, Random } from '#core';
import type { Blobs } from './blobs/blobs.js';
import type { JobsConfig } from './config.js';
import type { JobsEvent } from './events.js';
import { type JobChange, JobIndex } from './index/job-index.js';
import { createJobsService } from './rpc/handlers.js';
import { Attempt, type AttemptListener, type Step } from './run/attempt.js';
import { Keeper } from './run/keeper.js';
import { JobNews } from './run/news.js';
import type { Routers } from './run/routers.js';
import { Runner } from './run/runner.js';
import { type LivingReplica, Share, workerName } from './run/share.js';
import { Sweeper } from './run/sweeper.js';
import { Waits } from './run/waits.js';
import { JobRecords } from './store/job-records.js';
import type { WebhookEvent } from './webhook/events.js';
import { createWebhooks, type Webhooks } from './webhook/webhooks.js';

type JobsService = ReturnType<typeof createJobsService>;

export interface JobsOptions {
  readonly config: Pick<JobsConfig, 'admission' | 'replicaId' | 'records' | 'retry' | 'retention' | 'blobs' | 'webhook'>;
  readonly clock: Clock;
  readonly wallNow: () => number;
  readonly random: Random;
  readonly emit: Emit<JobsEvent>;
  readonly emitWebhook: Emit<WebhookEvent>;
  readonly bus: Bus;
  readonly incarnation: string;
  readonly blobs: Blobs;
  readonly routers: Pick<Routers, 'draw' | 'models'>;
  /** Those that live; undefined: not known yet. */
  readonly replicas: () => readonly LivingReplica[] | undefined;
  /** Requests the mesh can draw at once. */
  readonly slotCount: () => number;
  /** Passes at once, but in tests of crashes: they have the process stand still there. */
  readonly reached: (step: Step, jobId: string) => Promise<void>;
}

export interface Jobs extends JobsService {
  readonly records: JobRecords;
  readonly index: JobIndex;
  readonly share: Share;
  readonly runner: Runner;
  readonly webhooks: Webhooks;
  readonly news: JobNews;
  /** The records are followed, and NATS takes changes. */
  isFollowing(): boolean;
  /** It has read the records, and its NATS keeps them. While NATS is away, for whomever, nobody loses what is theirs. */
  mayOwn(): boolean;
  start(): void;
  /** Ends what is left; the records are still written to. */
  close(): Promise<void>;
}

/** A record is mostly the prompt: 8 KiB at most, and twice that as JSON. NATS takes no more than this by itself. */
const MAX_RECORD_BYTES = 1024 * 1024;
/** As the router has them: what waits here comes into the same order. */
const SHARES = { high: 0.6, normal: 0.3, low: 0.1 };

export function createJobs(options: JobsOptions): Jobs {
  const { blobs, bus, clock, config, emit, random, reached, replicas, routers, slotCount, wallNow } = options;
  const { replicaId } = config;
  const worker = workerName({ id: replicaId, incarnation: options.incarnation });
  const index: JobIndex = new JobIndex({ clock, onUnreadable: (key, error) => emit({ type: 'recordUnreadable', key, error }) });
  const records: JobRecords = new JobRecords({
    bus,
    clock,
    settings: {
      bucket: 'dmesh_jobs',
      description: 'Diffusion Mesh: durable jobs',
      maxRecordBytes: MAX_RECORD_BYTES,
      ...config.records,
    },
    listener: index.listener,
  });
  const isFollowing = () => bus.connected && records.state.kind === 'following';
  const attempt = (entry: Attempt['entry'], told: AttemptListener) =>
    new Attempt(entry, {
      clock,
      wallNow,
      random,
      emit,
      records,
      pictures: blobs,
      routers,
      worker,
      retry: config.retry,
      whenLinked: (signal) => whenLinked(bus, signal),
      ...told,
      reached,
    });
  const common = { clock, wallNow, random, emit, records, index, isMine: (key: string) => share.isMine(key) };
  const runner: Runner = new Runner({
    ...common,
    worker,
    isAlive: (name) => share.isAlive(name),
    attempt,
    mayStart: () => isFollowing() && index.complete,
    slotCount: () => Math.ceil(slotCount() / Math.max(1, share.ownerCount)), // the others hand over theirs
    shares: SHARES,
  });
  const retentionMs = (tenant: string) => config.retention.byTenant.get(tenant) ?? config.retention.defaultMs;
  const keeper = new Keeper({ ...common, pictures: blobs, retentionMs });
  const webhooks = createWebhooks({ ...common, config: config.webhook, emit: options.emitWebhook });
  const listeners = [runner, keeper, webhooks.teller];
  const share: Share = new Share({
    clock,
    replicaId,
    incarnation: options.incarnation,
    onDisplaced: ({ incarnation }) => emit({ type: 'displaced', replicaId, incarnation }),
    replicas,
    entries: () => index.entries(),
    listeners,
  });
  const waits = new Waits({ clock, wallNow, ownerOf: (key) => share.ownerOf(key) });
  const news: JobNews = new JobNews({ bus, clock, waits, index });
  const sweeper = new Sweeper({
    ...common,
    isMine: (name) => share.belongsHere(name),
    blobs,
    everyMs: config.blobs.sweepEveryMs,
    maySweep: () => isFollowing() && replicas() !== undefined,
  });
  const { handlers, door } = createJobsService({
    ...options,
    index,
    records,
    config: config.admission,
    steps: news,
    waits,
    webhookFor: (tenant, url) => webhooks.book.webhookFor(tenant, url),
    askModels: () => routers.models(),
    maxRecordBytes: config.records.maxBytes,
  });
  const follow = (what: JobChange) => {
    const { entry } = what;
    if (what.kind === 'removed') {
      share.removed(entry.key);
      return news.removed(entry);
    }
    share.job(entry);
    const told = index.complete && share.isMine(entry.key) && !index.isHeld(entry);
    news.changed(entry, told);
    if (told) emit({ type: 'jobChanged', ...changeOf(what, wallNow()) });
  };
  return {
    handlers: stoppable(handlers, reached),
    door,
    records,
    index,
    share,
    runner,
    webhooks,
    news,
    isFollowing,
    mayOwn: () => index.complete && records.state.kind !== 'unavailable',
    start() {
      index.onChange(follow);
      index.onState((state) => {
        emit({ type: 'recordsState', state: state.kind, cause: state.kind === 'unavailable' ? state.cause : '' });
        if (state.kind === 'following') runner.wake();
      });
      news.start();
      records.start();
      sweeper.start();
    },
    async close() {
      sweeper.stop();
      share.stop();
      keeper.close();
      webhooks.teller.close();
      await runner.close();
      news.stop();
      records.stop();
      waits.stop();
    },
  };
}

/** A test of crashes may have a job accepted and its caller without an answer. */
function stoppable(handlers: JobsService['handlers'], reached: JobsOptions['reached']): JobsService['handlers'] {
  return {
    ...handlers,
    submit: async (call) => {
      const answer = await handlers.submit(call);
      await reached('created', String(call.notes.job_id));
      return answer;
    },
  };
}

function changeOf({ before, entry }: Extract<JobChange, { kind: 'changed' }>, nowMs: number) {
  const { attempt, endedAtMs, jobId, kind, nodeId, startedAtMs, submittedAtMs, tenant } = entry;
  const since = before === 'running' ? startedAtMs : submittedAtMs;
  const tookMs = since > 0 ? Math.max(0, (endedAtMs > 0 ? endedAtMs : nowMs) - since) : undefined;
  return { tenant, jobId, before, state: kind, attempt, nodeId, tookMs };
}

/** Resolves when NATS is connected; rejects with the signal's reason. */
function whenLinked(bus: Bus, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    let forget = () => {};
    const onAbort = () => {
      forget();
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    forget = bus.onLink((connected) => {
      if (!connected) return;
      signal.removeEventListener('abort', onAbort);
      forget();
      resolve();
    });
    // Told at once, before there was anything to forget.
    if (bus.connected) forget();
  });
}
