/**
 * The process around a router: NATS and membership feed its fleet, gRPC and HTTP servers face the
 * world, and everything starts in order and leaves in reverse.
 */
import { TokenSource } from '#access';
import {
  callRoll,
  connectBus,
  KeptValue,
  Membership,
  MembershipSubscriber,
  makeIncarnation,
  ReplicaAnnouncer,
  ReplicaDirectory,
  registerService,
} from '#bus';
import { admin, generation } from '#contracts';
import type { Clock, Random } from '#core';
import { addHealth, addReflection, Server } from '#grpc';
import { Lifecycle, part } from '#runtime';
import { AdminHttp, createEventLoopLag, createMetrics, type Logger, observeCalls, observeTls, type Readiness } from '#telemetry';
import { TlsSource } from '#tls';
import { Access } from './access.js';
import { AuditLog } from './audit-log.js';
import type { RouterConfig } from './config.js';
import { JobsReplicas } from './jobs-replicas.js';
import { type NodeState, observe } from './observe.js';
import { Rates } from './rates.js';
import { adminHandlers, LEVERS } from './rpc/admin.js';
import { Jobs, jobsHandlers } from './rpc/jobs.js';
import { createRouter, type Router } from './service.js';

export interface BuiltRouter {
  readonly lifecycle: Lifecycle;
  /** Known once started. */
  readonly addresses: () => { grpc: string; http: string };
}

const VERSION = '0.1.0';

export interface RouterTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Start of this process; orders the lives of a router. */
  readonly startedAtEpochMs: number;
}

/** Reads the certificates, builds the rest. */
export async function build(config: RouterConfig, tools: RouterTools): Promise<BuiltRouter> {
  const { clock, random, logger } = tools;
  const metrics = createMetrics({ service: 'router', defaultMetrics: true });
  const lag = createEventLoopLag({ clock, metrics });
  const rates = new Rates(clock);
  const { tokenFile, anonymousRatePerSec, auditLog } = config.access;
  const audit = auditLog === undefined ? undefined : new AuditLog({ path: auditLog, clock, emit: (event) => emit(event) });
  const observed = observe({
    logger,
    metrics,
    sources: {
      waitingCount: () => router.dispatcher.waitingCount,
      runningCount: () => router.leases.size,
      liveCount: () => router.executor.liveCount,
      jobsReplicaCount: () => jobsDirectory.live().length,
      membershipFrozen: () => membership.frozen,
      nodes: () => nodeStates(router),
    },
  });
  const emit: typeof observed = (event) => {
    if (event.type === 'executed') rates.executed(event);
    if (event.type === 'requestEnded' || event.type === 'leverPulled') audit?.note(event);
    observed(event);
  };
  const certificates = new TlsSource({ paths: config.tls, clock, emit: observeTls({ metrics, logger }) });
  await certificates.start();
  const { cert, ca, callerCa, nodeName: serverName } = config.tls;
  const tls = {
    bus: cert === undefined ? undefined : certificates.client(),
    nodes: ca === undefined ? undefined : certificates.client({ serverName }),
    jobs: ca === undefined ? undefined : certificates.client(),
    callers: cert === undefined ? undefined : certificates.server(callerCa === undefined ? undefined : 'either'),
  };
  const bus = connectBus({ ...config.nats, tls: tls.bus, name: config.routerId, clock, random, emit });
  const membership: Membership = new Membership({
    clock,
    emit: (event) => {
      emit(event);
      router.fleet.follow(event);
    },
    lagMs: () => lag.lagMs(),
    rollCall: () => callRoll(bus),
  });
  const members = new MembershipSubscriber({ bus, clock, membership, emit });
  const access = new Access({ clock, emit, needsToken: tokenFile !== undefined, anonymousRatePerSec });
  const tokens =
    tokenFile === undefined ? undefined : new TokenSource({ path: tokenFile, clock, emit, onTokens: (list) => access.replace(list) });
  const router: Router = createRouter({
    config,
    access,
    clock,
    random,
    emit,
    nodeTls: tls.nodes,
    evidence: (nodeId, reachable) => (reachable ? membership.noteReachable(nodeId) : membership.noteUnreachable(nodeId)),
  });
  const routeStore = new KeptValue({
    bus,
    clock,
    bucket: 'dmesh_routes',
    key: 'routes',
    description: 'Diffusion Mesh: public model names and where they lead',
    onValue: (data, revision) => router.routes.accept(data, revision),
    onState: (state) => router.routes.noteState(state),
  });
  const jobsDirectory: ReplicaDirectory = new ReplicaDirectory({
    bus,
    clock,
    service: 'jobs',
    emit,
    onChange: () => jobsReplicas.prune(),
  });
  const jobsLink = { connectTimeoutMs: config.link.connectTimeoutMs, tls: tls.jobs };
  const jobsReplicas = new JobsReplicas({ clock, random, emit, directory: jobsDirectory, link: jobsLink });
  const observeCall = observeCalls({ metrics, logger });
  const server = new Server({
    clock,
    emit: (event) => {
      rates.callEnded(event);
      observeCall(event);
    },
    maxRequestBytes: config.maxRequestBytes,
    idleReaderMs: config.idleReaderMs,
    tls: tls.callers,
  });
  /** What load balancers are told, over HTTP and over gRPC. */
  const readiness = (): Readiness => {
    if (lifecycle.phase !== 'ready') return { ready: false, reason: `the router is ${lifecycle.phase}` };
    return router.fleet.slotCount() > 0 ? { ready: true } : { ready: false, reason: 'no node takes work' };
  };
  addHealth(server, { clock, isReady: () => readiness().ready });
  addReflection(server, ['diffusionmesh.v1.ImageGenerationService', 'diffusionmesh.v1.MeshAdminService', 'diffusionmesh.v1.JobsService']);
  server.add(generation.ImageGenerationServiceService, router.handlers);
  const parts = { bus, clock, cost: router.cost, dispatcher: router.dispatcher, fleet: router.fleet };
  const figures = {
    runningCount: () => router.leases.size,
    membershipFrozen: () => membership.frozen,
    rates,
    routes: router.routes,
    routeStore,
  };
  server.add(admin.MeshAdminServiceService, access.adminOnly(adminHandlers({ ...parts, ...figures }), LEVERS), { endless: ['watchMesh'] });
  server.add(Jobs, access.known(jobsHandlers(jobsReplicas)), { endless: ['watch'] });

  const http = new AdminHttp({ listen: config.httpListen, metrics, readiness });
  let grpcAddress = '';
  const host = config.listen.slice(0, config.listen.lastIndexOf(':'));
  const listen = async () => {
    grpcAddress = `${host}:${await server.listen(config.listen)}`;
  };
  const knowTokens = async () => {
    if (tokens) await tokens.start();
    else if (callerCa === undefined) emit({ type: 'accessOpen', listen: config.listen });
    else emit({ type: 'accessByCertificate', callerCa });
  };
  const incarnation = makeIncarnation(tools.startedAtEpochMs, random);
  const address = () => config.advertise ?? grpcAddress;
  const announcer = new ReplicaAnnouncer({
    bus,
    clock,
    random,
    read: () => ({ service: 'router', id: config.routerId, incarnation, address: address() }),
  });
  let unregister = () => {};
  const join = async () => {
    members.start();
    jobsDirectory.start();
    router.routes.awaitStore();
    routeStore.start();
    const metadata = () => ({ router_id: config.routerId, grpc_addr: address() });
    unregister = registerService(bus, { name: 'dmesh-router', version: VERSION, description: 'Routes generations', metadata }, emit);
    announcer.start();
  };
  const leave = async () => {
    unregister();
    await announcer.stop();
    members.stop();
    jobsDirectory.stop();
    jobsReplicas.close();
    routeStore.stop();
    await bus.close();
  };
  // In reverse: calls in flight end first, and their retries still know the nodes; then NATS, then the lines.
  const lifecycle: Lifecycle = new Lifecycle(
    [
      part('certificates', { close: async () => certificates.close() }),
      part('audit', { start: async () => audit?.start(), close: async () => audit?.close() }),
      part('access', { start: knowTokens, close: async () => tokens?.close() }),
      http,
      lag,
      part('fleet', { close: async () => router.close() }),
      part('membership', { close: leave }),
      part('grpc', { start: listen, drain: () => server.drain(), close: () => server.close() }),
      part('join', { start: join, drain: () => announcer.stop() }),
    ],
    { clock, graceMs: config.stopGraceMs },
  );
  return { lifecycle, addresses: () => ({ grpc: grpcAddress, http: http.address }) };
}

function* nodeStates(router: Router): Iterable<NodeState> {
  for (const node of router.fleet) {
    const state = node.beat.draining
      ? 'draining'
      : node.member.state !== 'alive'
        ? node.member.state
        : node.link.connected
          ? 'connected'
          : 'disconnected';
    const slowness = Math.max(...node.beat.models.map(({ name }) => router.cost.slowness(node.nodeId, name)), 1);
    yield { nodeId: node.nodeId, state, breaker: node.breaker.state, slowness };
  }
}
