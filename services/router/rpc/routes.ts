/** GetRoutes and SetRoutes: which public model names lead where, for the whole mesh. */
import { admin } from '#contracts';
import { badRequest, Code, Reason, StatusError, type Violation } from '#core';
import type { HandlersOf } from '#grpc';
import type { Fleet } from '../dispatch/fleet.js';
import { type Route, routeFaults, targetName, writeRoutes } from '../routes/route.js';
import type { RouteBook } from '../routes/route-book.js';

export interface RouteParts {
  readonly routes: Pick<RouteBook, 'routes' | 'revision'>;
  readonly fleet: Pick<Fleet, 'model' | 'models'>;
  /** The mesh's store: see KeptValue.replace. */
  readonly store: { replace(data: Uint8Array, expected: number): Promise<number> };
}

type Handlers = Pick<HandlersOf<typeof admin.MeshAdminServiceService>, 'getRoutes' | 'setRoutes'>;

export function routeHandlers({ routes, fleet, store }: RouteParts): Handlers {
  return {
    getRoutes: async () => ({
      routes: [...routes.routes.values()].map((route) => admin.Route.fromPartial({ ...route, targets: [...route.targets] })),
      revision: BigInt(routes.revision),
    }),
    setRoutes: async ({ request }) => {
      const wanted: readonly Route[] = request.routes;
      const faults = routeFaults(wanted);
      const unserved = request.force ? [] : unservedTargets(wanted, fleet);
      if (faults.length > 0) throw badRequest([...faults, ...unserved]);
      if (unserved.length > 0) throw unservedError(unserved);
      const revision = await store.replace(writeRoutes(wanted), Number(request.expectedRevision));
      return { revision: BigInt(revision) };
    },
  };
}

/** A weight of 0 gets nothing, so nobody needs to serve it yet. */
function unservedTargets(routes: readonly Route[], fleet: RouteParts['fleet']): Violation[] {
  const faults: Violation[] = [];
  for (const [i, { targets }] of routes.entries()) {
    for (const [k, target] of targets.entries()) {
      if (target.weight <= 0 || (fleet.model(target.model, target.revision)?.nodeCount ?? 0) > 0) continue;
      const field = `routes[${i}].targets[${k}]`;
      if (routes.some(({ name }) => name === target.model) && !fleet.models().has(target.model)) {
        faults.push({ field, description: `${JSON.stringify(target.model)} is a route; targets are models, not routes` });
        continue;
      }
      const known = fleet.models().get(target.model);
      const instead = known
        ? `revisions ${[...known.byRevision.keys()].join(', ')}`
        : `models ${[...fleet.models().keys()].sort().join(', ') || 'none'}`;
      faults.push({
        field,
        description: `no node serves ${JSON.stringify(targetName(target).slice(0, 257))}; there are the ${instead}`,
      });
    }
  }
  return faults;
}

function unservedError(violations: readonly Violation[]): StatusError {
  return new StatusError({
    code: Code.FAILED_PRECONDITION,
    reason: Reason.ROUTE_UNSERVED,
    message: `${violations.map((v) => `${v.field}: ${v.description}`).join('; ')}; force sets them all the same`,
    violations,
  });
}
