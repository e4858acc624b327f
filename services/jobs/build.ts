/**
 * The process around the jobs service: NATS tells it who lives and what there is to draw on, gRPC and HTTP servers
 * face the world, and everything starts in order and leaves in reverse.
 */
import { TokenSource } from '#access';
import {
  callRoll,
  connectBus,
  Membership,
  MembershipSubscriber,
  makeIncarnation,
  ReplicaAnnouncer,
  ReplicaDirectory,
  registerService,
} from '#bus';
import { jobs } from '#contracts';
import type { Clock, Random } from '#core';
import { addHealth, addReflection, Server } from '#grpc';
import { FollowedFiles, Lifecycle, part } from '#runtime';
import { AdminHttp, createEventLoopLag, createMetrics, type Logger, observeCalls, observeTls, type Readiness } from '#telemetry';
import { TlsSource } from '#tls';
import { openBlobs } from './blobs/blobs.js';
import { observeBlobs } from './blobs/observe.js';
import type { JobsConfig } from './config.js';
import type { JobsEvent } from './events.js';
import { observe } from './observe.js';
import type { Step } from './run/attempt.js';
import { Routers } from './run/routers.js';
import { createJobs, type Jobs } from './service.js';
import { observeWebhooks } from './webhook/observe.js';

export interface BuiltJobs {
  readonly lifecycle: Lifecycle;
  /** Known once started. */
  readonly addresses: () => { grpc: string; http: string };
}

export interface BuildTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Milliseconds since 1970. */
  readonly wallNow: () => number;
  /** Has the process stand still at a step; tests of crashes alone bring one. */
  readonly reached?: (step: Step, jobId: string) => Promise<void>;
}

const VERSION = '0.1.0';
const MAX_TOKEN_BYTES = 4096;

/** Reads the certificates, builds the rest. */
export async function build(config: JobsConfig, tools: BuildTools): Promise<BuiltJobs> {
  const { clock, random, logger, wallNow, reached = async () => {} } = tools;
  const metrics = createMetrics({ service: 'jobs', defaultMetrics: true });
  const lag = createEventLoopLag({ clock, metrics });
  const emit = observe({
    logger,
    metrics,
    sources: {
      counts: () => service.index.counts,
      oldestWaitingMs: () => Math.max(0, wallNow() - (service.index.oldestWaiting()?.submittedAtMs ?? wallNow())),
      storedBytes: () => service.index.storedBytes,
      recordBytes: () => service.index.recordBytes,
      ownedCount: () => service.share.size,
      readyCount: () => service.runner.waitingCount,
      attemptCounts: () => service.runner.attemptCounts(),
      slotCount: () => slotCount(membership),
      replicaCount: () => replicas.live().length,
      routerCount: () => routerAddresses().length,
      isFollowing: () => service.isFollowing(),
    },
  });
  const emitWebhook = observeWebhooks({
    logger,
    metrics,
    sources: {
      waitingCount: () => service.webhooks.teller.waitingCount,
      sendingCount: () => service.webhooks.teller.sendingCount,
    },
  });
  const certificates = new TlsSource({ paths: config.tls, clock, emit: observeTls({ metrics, logger }) });
  await certificates.start();
  const { cert, ca, callerCa, routerName: serverName } = config.tls;
  const tls = {
    bus: cert === undefined ? undefined : certificates.client(),
    routers: ca === undefined ? undefined : certificates.client({ serverName }),
    callers: cert === undefined ? undefined : certificates.server(callerCa === undefined ? undefined : 'callerCa'),
  };
  // The last that is waited for: what NATS tells below needs the service to be there.
  const blobs = await openBlobs({ config: config.blobs, clock, wallNow, emit: observeBlobs({ logger, metrics }) });
  const bus = connectBus({ ...config.nats, tls: tls.bus, name: config.replicaId, clock, random, emit });
  let knownSlotCount = 0;
  const membership: Membership = new Membership({
    clock,
    emit: () => {
      const now = slotCount(membership);
      if (now > knownSlotCount) service.runner.wake();
      knownSlotCount = now;
    },
    lagMs: () => lag.lagMs(),
    rollCall: () => callRoll(bus),
  });
  const members = new MembershipSubscriber({ bus, clock, membership, emit });
  const replicas: ReplicaDirectory = new ReplicaDirectory({
    bus,
    clock,
    service: 'jobs',
    emit,
    onChange: () => service.share.replicasChanged(),
  });
  const routerDirectory = new ReplicaDirectory({ bus, clock, service: 'router', emit, onChange: () => service.runner.wake() });
  const routerAddresses = () => config.routers ?? routerDirectory.live().map(({ address }) => address);
  const token = routerTokenOf(config, tools);
  const routers = new Routers({ clock, addresses: routerAddresses, token: token.current, tls: tls.routers });
  const incarnation = makeIncarnation(wallNow(), random);
  const service: Jobs = createJobs({
    config,
    clock,
    wallNow,
    random,
    emit: (event) => {
      tellOthers(service, event);
      emit(event);
    },
    emitWebhook,
    bus,
    incarnation,
    blobs,
    routers,
    replicas: () => (replicas.settledAt === undefined ? undefined : replicas.live()),
    slotCount: () => slotCount(membership),
    reached,
  });
  const server = new Server({
    clock,
    emit: observeCalls({ metrics, logger }),
    maxRequestBytes: config.maxRequestBytes,
    idleReaderMs: config.idleReaderMs,
    tls: tls.callers,
  });
  const readiness = (): Readiness => {
    if (lifecycle.phase !== 'ready') return { ready: false, reason: `the jobs service is ${lifecycle.phase}` };
    if (service.share.isDisplaced)
      return { ready: false, reason: `another replica ${config.replicaId} started later: one id, one process` };
    return service.isFollowing() ? { ready: true } : { ready: false, reason: 'the records are not followed: NATS is away or refuses' };
  };
  addHealth(server, { clock, isReady: () => readiness().ready });
  addReflection(server, ['diffusionmesh.v1.JobsService']);
  server.add(jobs.JobsServiceService, service.handlers, { endless: ['watch'] });

  const http = new AdminHttp({ listen: config.httpListen, metrics, readiness });
  const { tokenFile } = config.admission;
  const tokens =
    tokenFile === undefined ? undefined : new TokenSource({ path: tokenFile, clock, emit, onTokens: (list) => service.door.replace(list) });
  const knowTokens = async () => {
    await token.start();
    if (tokens) await tokens.start();
    else emit({ type: 'accessOpen', listen: config.listen, callerCa });
  };
  const forgetTokens = async () => {
    tokens?.close();
    token.close();
  };
  let grpcAddress = '';
  const host = config.listen.slice(0, config.listen.lastIndexOf(':'));
  const listen = async () => {
    grpcAddress = `${host}:${await server.listen(config.listen)}`;
  };
  const address = () => config.advertise ?? grpcAddress;
  let draining = false;
  const announcer = new ReplicaAnnouncer({
    bus,
    clock,
    random,
    read: () => ({ service: 'jobs', id: config.replicaId, incarnation, address: address(), draining: draining || !service.mayOwn() }),
  });
  const follow = async () => {
    members.start();
    routerDirectory.start();
    replicas.start();
    service.index.onState(() => announcer.changed());
    service.start();
    void replicas.whenSettled.then(() => service.share.replicasChanged());
  };
  let unregister = () => {};
  const join = async () => {
    announcer.start();
    const metadata = () => ({ replica_id: config.replicaId, incarnation, grpc_addr: address() });
    unregister = registerService(bus, { name: 'dmesh-jobs', version: VERSION, description: 'Keeps and runs durable jobs', metadata }, emit);
  };
  /** What waits is the others' from now on; what a node draws for us may finish. */
  let drained: Promise<unknown> = Promise.resolve();
  const handOver = async () => {
    draining = true;
    announcer.changed();
    drained = Promise.all([service.runner.drain(), service.webhooks.teller.drain()]);
  };
  const leave = async () => {
    unregister();
    await service.close();
    await announcer.stop();
    members.stop();
    routerDirectory.stop();
    replicas.stop();
    await bus.close();
    routers.close();
    blobs.close();
  };
  // In reverse: nothing new comes in, what runs ends and is recorded, then NATS and the rest.
  const lifecycle: Lifecycle = new Lifecycle(
    [
      part('certificates', { close: async () => certificates.close() }),
      http,
      lag,
      part('access', { start: knowTokens, close: forgetTokens }),
      part('blobs', { start: () => blobs.start() }),
      part('webhooks', { start: async () => service.webhooks.source?.start(), close: async () => service.webhooks.source?.close() }),
      part('jobs', { start: follow, drain: async () => void (await drained), close: leave }),
      part('grpc', { start: listen, drain: () => server.drain(), close: () => server.close() }),
      part('join', { start: join, drain: handOver }),
    ],
    { clock, graceMs: config.stopGraceMs },
  );
  return { lifecycle, addresses: () => ({ grpc: grpcAddress, http: http.address }) };
}

/** Of nodes that take work. */
function slotCount(membership: Membership): number {
  let count = 0;
  for (const { beat, state } of membership.members.values()) {
    if (state === 'alive' && !beat.draining && beat.engine.state === 'ready') count += beat.slotCount;
  }
  return count;
}

function tellOthers({ news }: Jobs, event: JobsEvent): void {
  if (event.type === 'jobWaits') news.waits(event, event);
  if (event.type === 'jobStepped') news.stepped(event, event);
  if (event.type === 'jobTurnedAway') news.turnedAway(event, event);
}

/** From the setting, or from a file that may be replaced at any time. */
function routerTokenOf({ routerToken, routerTokenFile: path }: JobsConfig, { clock, logger }: Pick<BuildTools, 'clock' | 'logger'>) {
  let token = routerToken;
  if (path === undefined) return { current: () => token, start: async () => {}, close: () => {} };
  const file = new FollowedFiles({
    paths: [path],
    clock,
    maxBytes: MAX_TOKEN_BYTES,
    take: ([content]) => {
      const found = content?.toString('utf8').trim() ?? '';
      if (found === '') return [`${path}: expected a token, got nothing`];
      token = found;
      return [];
    },
    onRejected: (faults) => logger.error({ path, faults }, 'token for routers refused, the last good one holds'),
  });
  return { current: () => token, start: () => file.start(), close: () => file.close() };
}
