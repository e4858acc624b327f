import type { generation } from '#contracts';
import type { UnaryHandler } from '#grpc';
import { type ModelInfo, modelMessage } from '#model-package';
import type { Fleet } from '../dispatch/fleet.js';
import { loadMsOf } from '../dispatch/fleet-node.js';
import { type Route, targetName } from '../routes/route.js';
import type { RouteBook } from '../routes/route-book.js';

/** Every name that can be asked for now: models some node serves, and routes that lead to one, which hide models of their name. */
export function listModels(parts: {
  fleet: Fleet;
  routes: RouteBook;
}): UnaryHandler<generation.ListModelsRequest, generation.ListModelsResponse> {
  const { fleet, routes } = parts;
  return async () => {
    const byName = new Map<string, generation.Model>();
    for (const [name, served] of fleet.models())
      if (served.nodeCount > 0) {
        const { nodeCount, loadedCount } = nodesWith(fleet, (info) => info.name === name);
        byName.set(name, modelMessage(served.info, nodeCount, { loadedCount, loadMs: served.loadMs }));
      }
    for (const route of routes.routes.values()) {
      const model = routeMessage(route, fleet);
      if (model) byName.set(route.name, model);
      else byName.delete(route.name);
    }
    return { models: [...byName.values()].sort((a, b) => a.name.localeCompare(b.name)) };
  };
}

/** Undefined when nobody serves any of its targets. */
function routeMessage(route: Route, fleet: Fleet): generation.Model | undefined {
  const targets = route.targets
    .filter(({ weight }) => weight > 0)
    .map((target) => ({ target, served: fleet.model(target.model, target.revision) }))
    .filter(({ served }) => (served?.nodeCount ?? 0) > 0)
    .sort((a, b) => b.target.weight - a.target.weight);
  const info = targets[0]?.served?.info;
  if (!info) return undefined;
  const { nodeCount, loadedCount } = nodesWith(fleet, ({ name, revision }) =>
    targets.some(({ target }) => target.model === name && (target.revision === '' || target.revision === revision)),
  );
  const loading = { loadedCount, loadMs: targets[0]?.served?.loadMs ?? 0 };
  return { ...modelMessage(info, nodeCount, loading), name: route.name, leadsTo: route.targets.map(targetName) };
}

/** Each node once, however many of its models are meant. */
function nodesWith(fleet: Fleet, isMeant: (info: ModelInfo) => boolean): { readonly nodeCount: number; readonly loadedCount: number } {
  const meant = [...fleet]
    .filter(({ met, member }) => met && member.state !== 'gone')
    .map(({ beat }) => beat.models.filter(isMeant))
    .filter((models) => models.length > 0);
  return { nodeCount: meant.length, loadedCount: meant.filter((models) => models.some((info) => loadMsOf(info) === 0)).length };
}
