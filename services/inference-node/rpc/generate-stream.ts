/** ImageGenerationService.GenerateStream: accepted, started, steps, the files in pieces, completed. */
import type { generation } from '#contracts';
import type { ServerStreamHandler, Writer } from '#grpc';
import { type GenerationParts, type Performed, perform } from './perform.js';

type Event = NonNullable<generation.GenerateEvent['event']>;

const CHUNK_BYTES = 256 * 1024;

export function generateStream(parts: GenerationParts): ServerStreamHandler<generation.GenerateRequest, generation.GenerateEvent> {
  return async (call, out) => {
    // Small events do not wait for a slow reader; a reader that is gone is seen by the call's signal.
    const tell = (event: Event) => void out.write({ event }).catch(() => {});
    const performed = await perform(call, parts, {
      onStarted: ({ drawable, attempt, loadMs, predictedMs }) => {
        const { requestId, seed } = drawable;
        tell({ $case: 'accepted', value: { requestId, seed, etaMs: loadMs + predictedMs } });
        tell({ $case: 'started', value: { nodeId: parts.nodeId, attempt, loadMs } });
      },
      onStep: ({ step, total, imageIndex }) => tell({ $case: 'step', value: { step, total, imageIndex } }),
    });
    await writeImages(performed, out);
    const { images, drawable, used, executingMs, queuedMs, attempts } = performed;
    const { requestId } = drawable;
    const value = { requestId, used, nodeId: parts.nodeId, executingMs, queuedMs, attempts, imageCount: images.length };
    await out.write({ event: { $case: 'completed', value } });
  };
}

async function writeImages({ images }: Performed, out: Writer<generation.GenerateEvent>): Promise<void> {
  for (const [imageIndex, { data, ...image }] of images.entries()) {
    for (let offset = 0; offset < data.length; offset += CHUNK_BYTES) {
      const value = {
        ...image,
        imageIndex,
        data: data.subarray(offset, offset + CHUNK_BYTES),
        offset: BigInt(offset),
        totalBytes: BigInt(data.length),
      };
      await out.write({ event: { $case: 'image', value } });
    }
  }
}
