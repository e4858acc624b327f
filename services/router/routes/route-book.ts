/**
 * The routes in force in this router: what the mesh's store said last. They hold while NATS is away, and
 * when the store holds nonsense; a router that has no store serves without routes and says so once.
 */
import type { KeptState } from '#bus';
import type { Emit } from '#core';
import type { RouterEvent } from '../events.js';
import { type Route, type Routes, readRoutes, routeText } from './route.js';

export class RouteBook {
  readonly #emit: Emit<RouterEvent>;
  #routes: Routes = new Map();
  #revision = 0;
  #settled: Promise<void> | undefined;
  #settle = () => {};

  constructor(emit: Emit<RouterEvent>) {
    this.#emit = emit;
  }

  get routes(): Routes {
    return this.#routes;
  }

  /** Of the newest word of the store, understood or not: what a change must expect. */
  get revision(): number {
    return this.#revision;
  }

  /** From now on somebody asks the store. */
  awaitStore(): void {
    this.#settled = new Promise((resolve) => {
      this.#settle = () => {
        this.#settled = undefined;
        resolve();
      };
    });
  }

  /** Resolves with the first word of the store, or that there is none; undefined once that has come. */
  get settled(): Promise<void> | undefined {
    return this.#settled;
  }

  /** The store's newest word. */
  accept(data: Uint8Array | undefined, revision: number): void {
    this.#revision = revision;
    this.#take(data, revision);
    this.#settle();
  }

  #take(data: Uint8Array | undefined, revision: number): void {
    if (data === undefined) {
      // An order to have none leaves a trace with a revision; without one, it is the store that is lost.
      if (revision > 0) this.#replace([], revision);
      else if (this.#routes.size > 0) this.#emit({ type: 'routesLost', routeCount: this.#routes.size });
      return;
    }
    const read = readRoutes(data);
    if (read.ok) this.#replace(read.routes, revision);
    else this.#emit({ type: 'routesRejected', revision, fault: read.fault });
  }

  noteState(state: KeptState): void {
    if (state.kind !== 'unavailable') return;
    this.#settle();
    this.#emit({ type: 'routesUnavailable', cause: state.cause });
  }

  #replace(routes: readonly Route[], revision: number): void {
    this.#routes = new Map(routes.map((route) => [route.name, route]));
    this.#emit({ type: 'routesChanged', revision, routes: routes.map(routeText) });
  }
}
