/**
 * May this request come in, and what exactly does it ask for? Every fault is named at once; defaults
 * are filled from the model's own limits; the seed is pinned, so that whatever node draws it, now or
 * on a retry, draws the same picture.
 */
import { ANONYMOUS_TENANT } from '#access';
import { type generation, priorityName } from '#contracts';
import { badRequest, type Clock, Code, type Emit, printable, type Random, Reason, StatusError } from '#core';
import type { Call } from '#grpc';
import { type ModelInfo, resolveRequest } from '#model-package';
import { type CostModel, PRIORITIES, type Priority, sizeRatio, type Work } from '#scheduling';
import type { Fleet } from './dispatch/fleet.js';
import type { Ticket } from './dispatch/ticket.js';
import type { RouterEvent } from './events.js';
import { drawTarget } from './routes/draw-target.js';
import { type Route, targetName } from './routes/route.js';
import type { RouteBook } from './routes/route-book.js';
import type { Visit } from './visit.js';

export interface AdmissionOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly emit: Emit<RouterEvent>;
  readonly fleet: Fleet;
  readonly routes: RouteBook;
  readonly cost: CostModel;
  /** Longest wait for a first node, when none was reached yet. */
  readonly noNodesWaitMs: number;
  /** So many may wait for it. */
  readonly waitLimit: number;
}

export class Admission {
  #arrivals = 0;
  #waitingForNodes = 0;

  constructor(private readonly options: AdmissionOptions) {}

  /** Throws INVALID_ARGUMENT with every violation, NOT_FOUND with what there is, NO_NODES, or what `visit` forbids. */
  async admit(call: Call<generation.GenerateRequest>, visit: Visit, onQueued?: Ticket['onQueued']): Promise<Ticket> {
    const { clock, cost, emit, random } = this.options;
    const { request } = call;
    const arrivedAt = clock.now();
    const requestId = request.requestId || call.metadata['x-request-id'] || randomId(random);
    call.notes.request_id = printable(requestId.slice(0, 128)); // it is judged below only
    // A tenant stays with its target; whoever is nobody in particular is drawn one by the request, or by what is the
    // same for all attempts of a job. The id of a request is the caller's to choose, and so may this be.
    const routeKey = visit.tenant === ANONYMOUS_TENANT ? (call.metadata['x-mesh-route-key'] ?? requestId) : visit.tenant;
    const { info, revision } = await this.#modelFor(request.model, routeKey, call.signal);
    const resolution = resolveRequest({ ...request, requestId }, info);
    const priority = priorityOf(request, call.metadata['x-priority'], visit.defaultPriority);
    const misnamed = priority ? [] : [{ field: 'x-priority', description: 'expected high, normal or low' }];
    if (!resolution.ok) throw refusal([...resolution.violations, ...misnamed], resolution.unknownLoras, info);
    if (!priority) throw badRequest(misnamed);
    const { resolved } = resolution;
    const work = { ...resolved, model: info.name };
    call.notes.model = info.name;
    visit.permit(request.model || info.name, priority);
    const costMs = cost.predictAnyMs(work);
    visit.charge({ costMs, imageCount: work.imageCount });
    const ticket: Ticket = {
      arrival: ++this.#arrivals,
      requestId,
      request: {
        ...request,
        ...resolved,
        loras: resolved.loras.map((lora) => ({ ...lora })),
        model: info.name,
        seed: request.seed ?? randomSeed(random),
      },
      asked: { requestId: request.requestId || call.metadata['x-request-id'] || '', seed: request.seed },
      work,
      sizeRatio: sizeRatio(work, info.defaults),
      revision,
      kind: kindOf(work, revision, resolved.loras),
      priority,
      tenant: visit.tenant,
      actedFor: visit.actedFor,
      costMs,
      loraNames: resolved.loras.map(({ name }) => name),
      arrivedAt,
      deadlineAt: call.deadlineAt,
      tried: new Set(),
      poisonCount: 0,
      attempts: 0,
      queuedMs: 0,
      servedBy: undefined,
      lastError: undefined,
      onQueued,
    };
    emit({ type: 'admitted', requestId, model: info.name, predictedMs: costMs });
    return ticket;
  }

  /** What the named route leads to, the named model, or the only one. A mesh that has reached no node yet, or none of it, is given time to. */
  async #modelFor(name: string, routeKey: string, signal: AbortSignal): Promise<{ info: ModelInfo; revision: string }> {
    const { fleet, routes } = this.options;
    if (fleet.models().size === 0) await this.#firstNode(name, signal);
    if (routes.settled) await this.#atMost(routes.settled, signal);
    const route = routes.routes.get(name);
    if (route) return this.#follow(route, routeKey);
    if (!this.#isDecided(name)) await this.#firstNode(name, signal);
    const info = this.#find(name);
    if (info) return { info, revision: '' };
    throw unknownModel(name, [...new Set([...fleet.models().keys(), ...routes.routes.keys()])].sort());
  }

  /** A router that has just started knows its nodes a little before its routes. */
  async #atMost(settled: Promise<void>, signal: AbortSignal): Promise<void> {
    const { clock, noNodesWaitMs } = this.options;
    const limit = new AbortController();
    void settled.then(() => limit.abort());
    await clock.sleep(noNodesWaitMs, AbortSignal.any([signal, limit.signal])).catch(() => signal.throwIfAborted());
  }

  /** Where nobody takes work for the drawn target (gone, draining, ejected), the others step in; with none left it waits for one. */
  #follow(route: Route, key: string): { info: ModelInfo; revision: string } {
    const { emit, fleet } = this.options;
    const target =
      drawTarget(route, key, ({ model, revision }) => fleet.takes(model, revision)) ??
      drawTarget(route, key, ({ model, revision }) => (fleet.model(model, revision)?.nodeCount ?? 0) > 0);
    const served = target && fleet.model(target.model, target.revision);
    if (!served) throw routeUnserved(route);
    emit({ type: 'routed', route: route.name, target: targetName(target) });
    return { info: served.info, revision: target.revision };
  }

  #find(name: string): ModelInfo | undefined {
    const served = this.options.fleet.models();
    return (name === '' && served.size === 1 ? [...served.values()][0] : served.get(name))?.info;
  }

  /** Waiting would not make a better answer. */
  #isDecided(name: string): boolean {
    const { fleet } = this.options;
    return this.#find(name) !== undefined || (fleet.models().size > 0 && !fleet.announces(name));
  }

  /** Resolves when the node has been reached. Throws NO_NODES, QUEUE_FULL or the signal's reason. */
  async #firstNode(name: string, signal: AbortSignal): Promise<void> {
    const { clock, fleet, noNodesWaitMs, waitLimit } = this.options;
    if (this.#waitingForNodes >= waitLimit) throw tooManyWait(waitLimit);
    const found = new AbortController();
    const watch = () => {
      if (this.#isDecided(name)) found.abort();
      else forget = fleet.onceModelsChange(watch);
    };
    let forget = fleet.onceModelsChange(watch);
    this.#waitingForNodes++;
    try {
      await clock.sleep(noNodesWaitMs, AbortSignal.any([signal, found.signal]));
      throw noNodes(name, noNodesWaitMs);
    } catch (thrown) {
      signal.throwIfAborted();
      if (!found.signal.aborted) throw thrown;
    } finally {
      forget();
      this.#waitingForNodes--;
    }
  }
}

/** The field wins over the header; undefined when the header is none of the names. */
function priorityOf(request: generation.GenerateRequest, header: string | undefined, usual: Priority): Priority | undefined {
  const field = priorityName(request.priority);
  if (field !== undefined || header === undefined) return field ?? usual;
  return PRIORITIES.find((name) => name === header.toLowerCase());
}

function refusal(violations: Parameters<typeof badRequest>[0], unknownLoras: readonly string[], info: ModelInfo): StatusError {
  const known = info.loras.map((lora) => lora.name).join(', ') || 'none';
  const missing = unknownLoras.map((name) => ({ field: 'loras', description: `expected one of ${known}, got ${JSON.stringify(name)}` }));
  if (violations.length > 0) return badRequest([...violations, ...missing]);
  return new StatusError({
    code: Code.NOT_FOUND,
    reason: Reason.UNKNOWN_LORA,
    message: missing.map((violation) => violation.description).join('; '),
    resource: { type: 'lora', name: unknownLoras.join(', '), description: `${info.name} has: ${known}` },
  });
}

function unknownModel(name: string, known: readonly string[]): StatusError {
  return new StatusError({
    code: Code.NOT_FOUND,
    reason: Reason.UNKNOWN_MODEL,
    message: `expected one of the models ${known.join(', ')}, got ${name === '' ? 'none' : JSON.stringify(name.slice(0, 128))}`,
    resource: { type: 'model', name: name.slice(0, 128), description: known.join(', ') },
  });
}

function routeUnserved({ name, targets }: Route): StatusError {
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.NO_NODES,
    message: `the route ${name} leads to ${targets.map(targetName).join(', ')}; no node serves any of them`,
    retryDelayMs: 1000,
  });
}

function noNodes(model: string, waitedMs: number): StatusError {
  return new StatusError({
    code: Code.UNAVAILABLE,
    reason: Reason.NO_NODES,
    message: `no inference node${model === '' ? '' : ` with the model ${JSON.stringify(model.slice(0, 128))}`} is reachable; waited ${waitedMs} ms`,
    retryDelayMs: 1000,
  });
}

function tooManyWait(limit: number): StatusError {
  return new StatusError({
    code: Code.RESOURCE_EXHAUSTED,
    reason: Reason.QUEUE_FULL,
    message: `no inference node is reachable yet, and ${limit} requests wait for one already`,
    retryDelayMs: 1000,
    metadata: { limit: String(limit), waiting: String(limit) },
  });
}

function kindOf(
  { model, width, height, steps, imageCount, guidanceScale }: Work,
  revision: string,
  loras: readonly { name: string }[],
): string {
  return [model, revision, width, height, steps, imageCount, guidanceScale, ...loras.map(({ name }) => name)].join('\n');
}

function randomId(random: Random): string {
  const part = () =>
    Math.floor(random() * 2 ** 32)
      .toString(36)
      .padStart(7, '0');
  return `r-${part()}${part()}`;
}

/** 32 bits: what torch's CPU generator reads of a seed. */
function randomSeed(random: Random): bigint {
  return BigInt(Math.floor(random() * 2 ** 32));
}
