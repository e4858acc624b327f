/** ImageGenerationService.ListModels: the models of this node, loaded or not; none while it is not ready to draw. */
import type { generation } from '#contracts';
import type { UnaryHandler } from '#grpc';
import { modelMessage } from '#model-package';
import type { Catalogue } from '../engine/catalogue.js';
import type { Supervisor } from '../engine/supervisor.js';

export function listModels({
  catalogue,
  supervisor,
}: {
  catalogue: Catalogue;
  supervisor: Supervisor;
}): UnaryHandler<generation.ListModelsRequest, generation.ListModelsResponse> {
  return async () => {
    if (!supervisor.engine) return { models: [] };
    return {
      models: catalogue.models.map(({ info, loaded, loadMs }) => modelMessage(info, 1, { loadedCount: loaded ? 1 : 0, loadMs })),
    };
  };
}
