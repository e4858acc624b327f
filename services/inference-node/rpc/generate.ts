/** ImageGenerationService.Generate: the picture in one answer. */
import type { generation } from '#contracts';
import type { UnaryHandler } from '#grpc';
import { answerInPieces } from './answer.js';
import { type GenerationParts, perform } from './perform.js';

export function generate(parts: GenerationParts): UnaryHandler<generation.GenerateRequest, generation.GenerateResponse> {
  return async (call) => {
    const { images, drawable, used, executingMs, queuedMs, attempts } = await perform(call, parts);
    return answerInPieces({
      images: images.map((image) => ({ ...image })),
      requestId: drawable.requestId,
      used,
      nodeId: parts.nodeId,
      executingMs,
      queuedMs,
      attempts,
    });
  };
}
