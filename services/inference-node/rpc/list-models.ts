/** ImageGenerationService.ListModels: the one model of this node; none while it is not ready to draw. */
import type { generation } from '#contracts';
import type { UnaryHandler } from '#grpc';
import { modelMessage } from '#model-package';
import type { Supervisor } from '../engine/supervisor.js';

export function listModels(supervisor: Supervisor): UnaryHandler<generation.ListModelsRequest, generation.ListModelsResponse> {
  return async () => {
    const engine = supervisor.engine;
    return { models: engine ? [modelMessage(engine.model, 1)] : [] };
  };
}
