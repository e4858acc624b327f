/**
 * The router, put together. A request's way, top to bottom:
 *
 *   libs/grpc Server   decode, deadline, cancellation, one event per ended call
 *   Access             whose token is it, and has its tenant had its share of this second and minute
 *   Admission          validate everything at once, fill defaults, pin the seed, predict the cost
 *   Executor           live count, attempts, retry budget, failure table, a second attempt for the urgent
 *     Dispatcher       wait in the one queue; an idle slot or a node's grant ends the wait
 *       Fleet          who serves it: beats (NATS), lines (Attach), breakers
 *     forward          call the node; its answer passes as the bytes that came
 *
 * Membership and the process around it are build.ts.
 */
import { type BreakerEvent, BreakerPool } from '#breaker';
import type { generation } from '#contracts';
import type { Clock, Emit, Random } from '#core';
import type { HandlersOf } from '#grpc';
import { CostModel, LeaseTable, RetryBudget, WaitQueue } from '#scheduling';
import type { ClientTls } from '#tls';
import type { Access } from './access.js';
import { Admission } from './admission.js';
import { drawCanary } from './canary.js';
import type { RouterConfig } from './config.js';
import { Dispatcher } from './dispatch/dispatcher.js';
import { Fleet } from './dispatch/fleet.js';
import { etaMs } from './dispatch/forecast.js';
import { kindOf, type Ticket } from './dispatch/ticket.js';
import type { RouterEvent } from './events.js';
import { Executor } from './execute.js';
import { Flights } from './join.js';
import { ResultCache } from './result-cache.js';
import { RouteBook } from './routes/route-book.js';
import { generate } from './rpc/generate.js';
import { generateStream } from './rpc/generate-stream.js';
import { listModels } from './rpc/list-models.js';
import { SlowNodes } from './slow-nodes.js';

export interface RouterOptions {
  readonly config: Pick<
    RouterConfig,
    'routerId' | 'zone' | 'cacheBytes' | 'order' | 'queue' | 'execution' | 'cost' | 'slowness' | 'retry' | 'hedge' | 'breaker' | 'link'
  >;
  readonly clock: Clock;
  readonly random: Random;
  readonly emit: Emit<RouterEvent | BreakerEvent>;
  /** How nodes are called; absent: plain. */
  readonly nodeTls?: ClientTls | undefined;
  /** Who may enter. */
  readonly access: Access;
  /** What gRPC proves of a node, for membership. */
  readonly evidence: (nodeId: string, reachable: boolean) => void;
}

export interface Router {
  readonly fleet: Fleet;
  readonly dispatcher: Dispatcher;
  readonly executor: Executor;
  readonly cost: CostModel;
  readonly leases: LeaseTable;
  readonly routes: RouteBook;
  readonly handlers: HandlersOf<typeof generation.ImageGenerationServiceService>;
  /** Fails what waits, lets go of all nodes. */
  close(): void;
}

export function createRouter(options: RouterOptions): Router {
  const { access, config, clock, random, emit, nodeTls, evidence } = options;
  const queue = new WaitQueue<Ticket>({ ...config.order, kindOf });
  const leases = new LeaseTable();
  const { slowRatio } = config.slowness;
  const cost = new CostModel({ ...config.cost, slowRatio, deviceOf: (nodeId) => fleet.get(nodeId)?.device });
  const breakers = new BreakerPool({
    clock,
    random,
    emit,
    probe: (nodeId, signal) => drawCanary(fleet.get(nodeId), { emit, slowNodes }, signal),
    settings: { openMs: config.breaker.openMs },
  });
  const fleet: Fleet = new Fleet({
    routerId: config.routerId,
    zone: config.zone,
    clock,
    random,
    link: { ...config.link, tls: nodeTls },
    emit,
    breakers,
    cost,
    evidence,
    onChange: () => dispatcher.pumpSoon(),
    onGrant: (node, grantId, preemption) => dispatcher.onGrant(node, grantId, preemption),
    onServed: (service) => {
      queue.served(service);
      access.served(service);
    },
  });
  const slowNodes = new SlowNodes({ cost, fleet, emit, settings: config.slowness });
  const dispatcher = new Dispatcher({
    clock,
    emit,
    fleet,
    queue,
    leases,
    cost,
    limits: config.queue.limits,
    queueTimeoutMs: config.queue.timeoutMs,
    noNodesWaitMs: config.queue.noNodesWaitMs,
  });
  const budget = new RetryBudget(config.retry);
  const executor = new Executor({
    clock,
    emit,
    fleet,
    dispatcher,
    cost,
    budget,
    learn: (node, work, tookMs) => slowNodes.learn(node, work, tookMs),
    limits: config.execution,
    routerId: config.routerId,
    correct: (service) => queue.correct(service),
    maxNodes: config.retry.maxNodes,
    hedge: config.hedge,
  });
  const routes = new RouteBook(emit);
  const admission = new Admission({
    clock,
    random,
    emit,
    fleet,
    routes,
    cost,
    noNodesWaitMs: config.queue.noNodesWaitMs,
    waitLimit: config.queue.limits.minCount,
  });
  return {
    fleet,
    dispatcher,
    executor,
    cost,
    leases,
    routes,
    handlers: {
      generate: generate({ access, admission, executor, flights: new Flights(), cache: new ResultCache(config.cacheBytes, emit) }),
      generateStream: generateStream({
        access,
        admission,
        executor,
        flights: new Flights(),
        clock,
        etaMs: (ticket) => etaMs(ticket, { fleet, queue }),
      }),
      ...access.known({ listModels: listModels({ fleet, routes }) }),
    },
    close() {
      dispatcher.close();
      fleet.close();
    },
  };
}
