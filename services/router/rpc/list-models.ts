import type { generation } from '#contracts';
import type { UnaryHandler } from '#grpc';
import { modelMessage } from '#model-package';
import type { Fleet } from '../dispatch/fleet.js';

/** Every model some node serves, by name. */
export function listModels(parts: { fleet: Fleet }): UnaryHandler<generation.ListModelsRequest, generation.ListModelsResponse> {
  return async () => {
    const served = [...parts.fleet.models().values()].filter(({ nodeCount }) => nodeCount > 0);
    const models = served.map(({ info, nodeCount }) => modelMessage(info, nodeCount));
    return { models: models.sort((a, b) => a.name.localeCompare(b.name)) };
  };
}
