/**
 * Reads one engine call to its end: steps, one picture for each item, done. Whatever does not fit
 * the protocol is DATA_LOSS, because a picture of the wrong size must never reach a caller.
 */
import type { engine } from '#contracts';
import { Code, Reason, StatusError } from '#core';

export interface Rgb {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

export interface CollectOptions {
  readonly width: number;
  readonly height: number;
  readonly imageCount: number;
  readonly onStep: (step: engine.EngineStep) => void;
  readonly onImage: (rgb: Rgb, imageIndex: number) => void;
}

/** Resolves with the engine's timings. Rejects with what the stream rejects with, or DATA_LOSS. */
export async function collect(events: AsyncIterable<engine.EngineGenerateEvent>, options: CollectOptions): Promise<engine.EngineDone> {
  let imageCount = 0;
  for await (const { event } of events) {
    switch (event?.$case) {
      case 'step':
        options.onStep(event.value);
        break;
      case 'image':
        options.onImage(checked(event.value, imageCount, options), imageCount);
        imageCount++;
        break;
      case 'done':
        if (imageCount !== options.imageCount) throw nonsense(`${options.imageCount} pictures`, `${imageCount}`);
        return event.value;
      case undefined:
        throw nonsense('an event', 'an empty one');
    }
  }
  throw nonsense('a last event "done"', 'the end of the stream');
}

function checked(image: engine.RgbImage, index: number, { width, height }: CollectOptions): Rgb {
  if (image.imageIndex !== index) throw nonsense(`picture ${index}`, `picture ${image.imageIndex}`);
  if (image.width !== width || image.height !== height) throw nonsense(`${width}x${height} pixels`, `${image.width}x${image.height}`);
  const byteCount = width * height * 3;
  if (image.data.length !== byteCount) throw nonsense(`${byteCount} bytes of RGB`, `${image.data.length}`);
  return { width, height, data: image.data };
}

function nonsense(expected: string, got: string): StatusError {
  return new StatusError({
    code: Code.DATA_LOSS,
    reason: Reason.BAD_STREAM,
    message: `the engine broke its protocol: expected ${expected}, got ${got}`,
  });
}
